"""What a language model is asked, and the words that it may answer: a task in, texts and their tokens out.

The question names the feature and its allowed words. It stands in the form of a conversation that Qwen2-Audio was
taught (ChatML, as `Qwen2AudioProcessor` has it). An answer is a word and the mark that ends an answer.
"""

from collections.abc import Sequence
from typing import Any

from heartml.core.tasks import Task
from heartml.models.heads.describe_params import DescribeError

AUDIO, END = "<|AUDIO|>", "<|im_end|>"
SPECIAL = ("<|im_start|>", END, "<|audio_bos|>", AUDIO, "<|audio_eos|>")
_CONVERSATION = ("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
                 "Audio 1: <|audio_bos|><|AUDIO|><|audio_eos|>\n{question}<|im_end|>\n<|im_start|>assistant\n")


def question(task: Task, words: Sequence[str]) -> str:
    """What is asked about a recording.

    >>> from heartml.core.tasks import TASKS
    >>> question(TASKS["systolic_grading"], ["I/VI", "II/VI"])
    'This is a heart sound. What is its systolic murmur grading? Answer with one of: I/VI, II/VI.'
    """
    return (f"This is a {task.organ} sound. What is its {task.label.replace('_', ' ')}? "
            f"Answer with one of: {', '.join(words)}.")


def prompt(task: Task, words: Sequence[str]) -> str:
    """The conversation up to the answer; the sound is one mark."""
    return _CONVERSATION.format(question=question(task, words))


def prompt_tokens(tokenizer: Any, text: str, heard: int) -> list[int]:
    """Tokens of a prompt, with `heard` of them in the place of the sound.

    Raises:
        DescribeError: the tokenizer knows no such mark.
    """
    for mark in SPECIAL:
        if len(_ids(tokenizer, mark)) != 1:
            raise DescribeError(f"the tokenizer has no token {mark}: the folder is not that of a Qwen2-Audio which was "
                                "taught to follow instructions")
    before, _, after = text.partition(AUDIO)
    return [*_ids(tokenizer, before), *_ids(tokenizer, AUDIO) * heard, *_ids(tokenizer, after)]


def answer_tokens(tokenizer: Any, word: str) -> list[int]:
    """Tokens of an answer; the last one ends it, so no word has an advantage because another begins like it."""
    return _ids(tokenizer, word + END)


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(map(int, tokenizer(text, add_special_tokens=False)["input_ids"]))
