"""What sections of settings are made of: the model they are, and kinds of values."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
)


class Section(BaseModel):
    """A group of settings: frozen, and closed to keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _no_nul(cls, value: Any) -> Any:
        if isinstance(value, str | Path) and "\0" in str(value):
            raise ValueError("it holds a NUL character, which no name can; leave that out")
        return value


def _auto_or(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    return value if value == "auto" else handler(value)


OR_AUTO = (WrapValidator(_auto_or), PlainSerializer(lambda value: value, return_type=int | str))
AUTO: Any = "auto"  # the program chooses, and says what it chose
Count = Annotated[int, Field(ge=1), *OR_AUTO]
Share = Annotated[
    float, Field(ge=0), WrapValidator(_auto_or), PlainSerializer(lambda value: value, return_type=float | str)
]
