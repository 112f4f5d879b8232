import pytest

from estimators.sample_forms import PixelForm
from estimators.tokenising import PADDING, TokenForm, load_tokenizer
from tests.small_encoders import tokenizer_json

pytest.importorskip("tokenizers", reason="needs the extra 'text'")


def form(length: int = 6) -> TokenForm:
    return TokenForm(tokenizer=tokenizer_json(), max_length=length)


def openers(*texts: str):
    return [(f"t{n}", lambda text=text: text) for n, text in enumerate(texts)]


def test_texts_become_rows_with_special_tokens_and_padding() -> None:
    found = form().encode(openers("The cat", "cat"))
    library = load_tokenizer(tokenizer_json())
    ids = [library.token_to_id(word) for word in ("[CLS]", "the", "cat", "[SEP]")]
    assert found.rows.tolist() == [[*ids, PADDING, PADDING], [ids[0], ids[2], ids[3], *[PADDING] * 3]]
    assert found.rows.dtype == "int32"
    assert found.facts == {"cut": 0, "tokens": 7, "unknown": 0}


def test_a_long_text_is_cut_and_keeps_its_closing_token() -> None:
    found = form(5).encode(openers("the cat eats rice and bread", "a cat"))
    plain = load_tokenizer(tokenizer_json()).encode("the cat eats").ids
    assert found.rows[0].tolist() == plain
    assert found.facts["cut"] == 1
    assert form(5).notes("a", {"samples": 2, **found.facts}) == [
        "task 'a': 1 of 2 texts have more than 5 tokens and were cut (backbone.max_length)"
    ]


def test_a_text_of_exactly_the_length_is_not_cut() -> None:
    found = form(5).encode(openers("the cat eats"))
    assert found.facts["cut"] == 0
    assert PADDING not in found.rows


def test_a_language_that_the_tokenizer_does_not_know_is_said() -> None:
    found = form().encode(openers("die katze", "cat"))
    assert found.facts["unknown"] == 2
    (note,) = form().notes("a", {"samples": 2, **found.facts})
    assert "29% of the tokens are unknown to the tokenizer" in note
    assert form().notes("a", {"samples": 9, "cut": 0, "tokens": 90, "unknown": 2}) == []


def test_texts_without_a_token_are_unreadable_and_named() -> None:
    found = form().encode(openers("cat", "", "dog"))
    assert found.readable == [0, 2]
    assert found.unreadable == {"t1": "no token in it (an empty text?)"}
    assert len(found.rows) == 2


def test_the_form_is_known_by_length_and_tokenizer() -> None:
    assert form(6).about == form(6).about
    assert form(6).about != form(7).about
    other = TokenForm(tokenizer=tokenizer_json().replace("cat", "cow"), max_length=6)
    assert form(6).about != other.about
    assert form(6).row_bytes == form(6).encode(openers("cat")).rows.nbytes


def test_damaged_tokenizers_and_lengths_without_room_are_refused() -> None:
    with pytest.raises(ValueError, match=r"tokenizer.json cannot be read .*; save the model with its fast tokenizer"):
        load_tokenizer("{}")
    with pytest.raises(ValueError, match=r"max_length=1 must be at least 2 tokens"):
        TokenForm(tokenizer="{}", max_length=1)
    with pytest.raises(ValueError, match=r"max_length=2 leaves no room beside 2 special tokens"):
        form(2).encode(openers("the cat"))


def test_images_have_a_form_of_their_own() -> None:
    pixels = PixelForm(image_size=4, channels=3)
    assert pixels.row_bytes == 48
    assert pixels.notes("a", {"samples": 3}) == []
