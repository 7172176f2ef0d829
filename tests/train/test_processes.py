"""Two processes over gloo learn what one does; one that is killed is said, and the state goes on."""

import pytest

pytestmark = pytest.mark.slow
