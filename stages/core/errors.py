"""The one exception a person sees."""


class StageError(Exception):
    """A stage can't go on: what is wrong, where, and what to do about it.

    `run_stage` prints it as one line without a traceback and exits with 1.
    """

    def __init__(self, where: str, what: str, do: str) -> None:
        super().__init__(f"{where}: {what}; {do}")
        self.where, self.what, self.do = where, what, do

    def __reduce__(self) -> tuple[type["StageError"], tuple[str, str, str]]:
        """Travels whole from a worker process to the one that prints it."""
        return type(self), (self.where, self.what, self.do)
