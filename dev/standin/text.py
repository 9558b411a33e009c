"""Tokens without a tokenizer: counted by length, written as words."""

CHARACTERS_PER_TOKEN = 4
"""Characters per token of English text, the rule of thumb of OpenAI's tokenizer help page."""

_TEXT = (
    "the scheduler places every replica on a node with enough memory and then waits until it answers while "
    "requests queue at the gateway and tokens flow back in order"
)
_WORDS = _TEXT.split()


def count_tokens(characters: int) -> int:
    """Return the tokens of a text of that many characters, at least one."""
    return max(1, -(-characters // CHARACTERS_PER_TOKEN))


def render_tokens(start: int, end: int) -> str:
    """Return the text of output tokens `start` to `end` (exclusive): one word each.

    The text of a range depends on nothing but the range, so parts of any size join to the same whole.
    """
    return "".join(("" if index == 0 else " ") + _WORDS[index % len(_WORDS)] for index in range(start, end))


def cut_tokens(text: str, start: int, end: int) -> str:
    """Return the part of a given text that output tokens `start` to `end` (exclusive) are."""
    return text[start * CHARACTERS_PER_TOKEN : end * CHARACTERS_PER_TOKEN]
