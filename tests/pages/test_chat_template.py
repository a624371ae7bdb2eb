"""Chat templates of every kind: each ends in the official prompt, or in one line that says what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from transformers import HunYuanVLProcessor

from hyocr_core.errors import CalibrationError, CheckpointError
from hyocr_core.pages import rendering
from hyocr_core.pages.chat_template import Texts, check_template, write
from hyocr_core.pages.rendering import Renderer
from hyocr_core.testing import layout
from hyocr_core.testing.layout import ASSISTANT, BOS, IMAGE, IMAGE_END, IMAGE_START, SYSTEM_END, USER

PICTURE = IMAGE_START + IMAGE + IMAGE_END
TEXTS = [
    Texts("", "Read.", None),
    Texts("", "Read.", "ab\ncd"),
    Texts("Be exact.", "Be", "exact"),
    Texts("e", "e", "e"),
    Texts("", "Fields: [\"a\", 'b'] \\ {{ c }} <d>", "  x\n"),
]
"""Some say what others say too, or what the template writes."""

IMAGE_LINE = f"{{{{ '{PICTURE}' }}}}"

STRINGS = (
    f"{{{{ '{BOS}' }}}}{{% for m in messages %}}{{{{ '' + m['content'] }}}}"
    f"{{{{ {{'system': '{SYSTEM_END}', 'user': '{USER}', 'assistant': '{ASSISTANT}'}}[m['role']] }}}}{{% endfor %}}"
)
"""Joins strings, as those of Tencent's text models do: a list breaks it."""

SILENT = STRINGS.replace("'' + m['content']", "m['content']")
"""Writes whatever it is given: of a list, what Python shows of it."""

LISTS = (
    f"{{{{ '{BOS}' }}}}{{% for m in messages %}}{{% for part in m['content'] %}}"
    f"{{% if part['type'] == 'image' %}}{IMAGE_LINE}{{% else %}}{{{{ part['text'] }}}}{{% endif %}}{{% endfor %}}"
    f"{{{{ {{'system': '{SYSTEM_END}', 'user': '{USER}', 'assistant': '{ASSISTANT}'}}[m['role']] }}}}{{% endfor %}}"
)
"""Walks through parts: of a string it leaves out every letter."""

BOTH = layout.CHAT_TEMPLATE

STRICT = LISTS.replace(
    "{% for part in m['content'] %}",
    "{% if m['role'] != 'user' and m['content'] is not string %}{{ raise_exception('a string!') }}{% endif %}"
    "{% for part in ([{'type': 'text', 'text': m['content']}] if m['content'] is string else m['content']) %}",
)
"""Takes the messages of the official clients and no others."""

SPACED = LISTS.replace("{% for m in messages %}", "{% for m in messages %}\n    {# a turn #}\n    ") + "\n"
"""Over many lines: what stands around the tags is trimmed by the environment that runtimes use."""

MACRO = (
    "{% macro said(m) %}{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for part in m['content'] %}"
    f"{{% if part['type'] == 'image' %}}{IMAGE_LINE}{{% else %}}{{{{ part['text'] }}}}{{% endif %}}{{% endfor %}}"
    f"{{% endif %}}{{% endmacro %}}{{{{ '{BOS}' }}}}{{% set closing = "
    f"{{'system': '{SYSTEM_END}', 'user': '{USER}', 'assistant': '{ASSISTANT}'}} %}}"
    "{%- for m in messages %}{{ said(m) }}{{ closing[m.role] }}{% endfor %}"
)

LOOPS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
"""For an hour."""

GENERATING = BOTH + "{%- if add_generation_prompt -%}{{- '' -}}{%- endif -%}"

RIGHT = {
    "strings": STRINGS,
    "what Python shows": SILENT,
    "lists": LISTS,
    "both": BOTH,
    "official": STRICT,
    "white space": SPACED,
    "macros": MACRO,
    "generating": GENERATING,
}

WRONG = {
    "throws": ("{{ raise_exception('no images') }}", "does not render: no images"),
    "breaks": (BOTH + "{{ 'a' + 1 }}", 'does not render: can only concatenate str (not "int") to str'),
    "is none": ("{% for %}", "does not render: Expected an expression"),
    "recurses": (
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
        "does not render: maximum recursion depth",
    ),
    "loops": ("{% for i in range(1000000000) %}{% endfor %}", "does not render: Range too big"),
    "reaches out": ("{{ ''.__class__.__mro__ }}", "does not render: access to attribute"),
    "says nothing": ("", "leaves out the text of the question"),
    "drops the question": (LISTS.replace("{{ part['text'] }}", ""), "leaves out the text of the question"),
    "doubles the question": (
        LISTS.replace("{{ part['text'] }}", "{{ part['text'] * 2 }}"),
        "writes the text of the question 2 times",
    ),
    "drops the image": (LISTS.replace(PICTURE, ""), "places the image 0 times, not once"),
    "doubles the image": (LISTS.replace(PICTURE, PICTURE * 2), "places the image 2 times, not once"),
    "shows the messages too": (LISTS + "{{ messages[-1]['content'] | upper }}", "writes more of what a message says"),
    "shows JSON": ("{{ messages | tojson }}", "leaves out the text of the question"),
    "lets no system turn in": (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}" + BOTH,
        "does not render: no system turn",
    ),
}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return layout.build_published_tokenizer()


@pytest.fixture
def templated(tokenizer: Any) -> Callable[[str], Any]:
    """A processor with a template of its own, its ids the published ones."""
    images = layout.build_processor(pixels=(1024, 262144)).image_processor

    def make(template: str) -> Any:
        return HunYuanVLProcessor(images, tokenizer, chat_template=template)

    return make


def official(texts: Texts) -> tuple[str, str]:
    prompt = f"{BOS}{texts.system}{SYSTEM_END}{PICTURE}{texts.question}{USER}"
    return prompt, "" if texts.answer is None else texts.answer + ASSISTANT


@pytest.mark.parametrize("name", RIGHT)
def test_a_template_that_can_be_used_writes_the_official_prompt(name: str, templated: Callable[[str], Any]) -> None:
    processor = templated(RIGHT[name])
    assert [write(processor, texts) for texts in TEXTS] == [official(texts) for texts in TEXTS]


@pytest.mark.parametrize("name", WRONG)
def test_another_is_refused_in_one_line(name: str, templated: Callable[[str], Any]) -> None:
    template, reason = WRONG[name]
    with pytest.raises(CheckpointError) as caught:
        check_template(templated(template))
    assert str(caught.value).startswith(f"the chat template {reason}")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_template_that_is_never_done_is_refused(
    templated: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendering, "SECONDS", 0.5)
    with pytest.raises(CheckpointError, match=r"the chat template is not done with one page after 0.5 s; it may loop"):
        check_template(templated(LOOPS + BOTH))
    check_template(templated(BOTH + "{# the next is none the worse #}"))


@pytest.mark.parametrize(
    "multiplies",
    [
        "{% set text = 'a' * 9999999999 %}",
        "{% set ns = namespace(a='a' * 1000) %}{% for i in range(60) %}{% set ns.a = ns.a ~ ns.a %}{% endfor %}",
        "{{ '%9999999999d' % 1 }}",
        "{{ 'a' | center(9999999999) }}",
        "{{ messages | tojson(indent=999999999) }}",
    ],
)
def test_a_template_that_asks_for_all_memory_is_refused(multiplies: str, templated: Callable[[str], Any]) -> None:
    with pytest.raises(CheckpointError, match=r"^the chat template takes more than 512 MiB of memory for one page$"):
        check_template(templated(multiplies + BOTH))
    check_template(templated(BOTH + "{# the next is none the worse #}"))


def test_a_template_that_loops_on_one_page_alone_is_refused_there(
    templated: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No probe finds that out beforehand, so no page is rendered without limits."""
    monkeypatch.setattr(rendering, "SECONDS", 0.5)
    text = "messages[-1]['content'][-1]['text']"
    processor = templated(f"{{% if {text} == 'now' %}}{LOOPS}{{% endif %}}{BOTH}")
    assert write(processor, TEXTS[0]) == official(TEXTS[0])
    with pytest.raises(CheckpointError, match="is not done with one page after"):
        write(processor, Texts("", "now", None))


def test_a_template_that_writes_without_end_is_refused(templated: Callable[[str], Any]) -> None:
    writes = "{% for i in range(99999) %}{{ 'a' * 999 }}{% endfor %}"
    with pytest.raises(CheckpointError, match="does not render: it writes more than 16,777,216 characters"):
        check_template(templated(writes + BOTH))


def test_one_of_several_templates_is_the_default_one(templated: Callable[[str], Any]) -> None:
    processor = templated(BOTH)
    processor.chat_template = {"default": BOTH, "tools": "hello"}
    assert write(processor, TEXTS[0]) == official(TEXTS[0])
    other = templated(BOTH)
    other.chat_template = {"tools": BOTH}
    with pytest.raises(CheckpointError, match="is no text, and none of several is called default"):
        check_template(other)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The conversations that templates are given from then on."""
    heard: list[Any] = []
    render = Renderer.render

    def listen(self: Renderer, template: str, messages: Any, variables: Any) -> str:
        heard.append(messages)
        return render(self, template, messages, variables)

    monkeypatch.setattr(Renderer, "render", listen)
    return heard


def test_the_form_is_found_once(templated: Callable[[str], Any], given: list[Any]) -> None:
    processor = templated(STRINGS)
    write(processor, Texts("", "Read.", None))
    given.clear()
    write(processor, Texts("", "Read.", None))
    assert given == [[{"role": "system", "content": ""}, {"role": "user", "content": f"{PICTURE}Read."}]]


def test_messages_are_the_official_ones_where_the_template_takes_them(
    templated: Callable[[str], Any], given: list[Any]
) -> None:
    write(templated(BOTH), Texts("Be exact.", "Read.", "abc"))
    assert given[-1] == [
        {"role": "system", "content": "Be exact."},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Read."}]},
        {"role": "assistant", "content": "abc"},
    ]


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_written_is_what_transformers_writes(
    name: str, templated: Callable[[str], Any], given: list[Any]
) -> None:
    """In the runtimes templates are rendered by `apply_chat_template`."""
    processor = templated(RIGHT[name])
    written = write(processor, Texts("Be exact.", 'Read \u65e5\n"this" {{ x }}.', None))
    assert processor.apply_chat_template(given[-1], add_generation_prompt=True) == written.prompt


NO_SYSTEM_TEXT = BOTH.replace("{%- if message['content'] is string -%}{{- message['content'] -}}", "{%- if true -%}", 1)
DOUBLE_ANSWER = BOTH.replace(f"{{{{- '{ASSISTANT}' -}}}}", f"{{{{- message['content'] -}}}}{{{{- '{ASSISTANT}' -}}}}")


@pytest.mark.parametrize(
    ("template", "texts", "reason"),
    [
        (NO_SYSTEM_TEXT, Texts("Be exact.", "Read.", None), "leaves out the text of the system"),
        (DOUBLE_ANSWER, Texts("", "Read.", "abc"), "writes the text of the answer 2 times"),
        (
            BOTH.replace(f"{{{{- '{USER}' -}}}}", f"{{{{- '{USER}' -}}}}{{%- if loop.last -%}}Think.{{%- endif -%}}"),
            Texts("", "Read.", "abc"),
            "does not begin a conversation that has an answer with the prompt for that answer",
        ),
    ],
)
def test_what_cannot_be_sent_is_refused_when_it_is_to_be_sent(
    template: str, texts: Texts, reason: str, templated: Callable[[str], Any]
) -> None:
    processor = templated(template)
    assert write(processor, TEXTS[0]).prompt.startswith(official(TEXTS[0])[0]), "which needs nothing of it"
    with pytest.raises(CheckpointError, match=f"the chat template {reason}"):
        write(processor, texts)


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (Texts("", " Read. ", None), "changes the text of the question"),
        (Texts("", "Read.", "abc\n"), "changes the text of the answer"),
        (Texts("\tRead.", "Read.", None), "changes the text of the system"),
        (Texts("", "secret", None), "does not render: no secrets"),
        (Texts("", "twice", None), "changes the text of the page"),
    ],
)
def test_a_text_that_the_template_changes_is_a_failure_of_its_page(
    texts: Texts, reason: str, templated: Callable[[str], Any]
) -> None:
    odd = MACRO.replace("{{ m['content'] }}", "{{ m['content'] | trim }}").replace(
        "{{ part['text'] }}",
        "{% if part['text'] == 'secret' %}{{ raise_exception('no secrets') }}{% endif %}{{ part['text'] | trim }}"
        "{% if part['text'] == 'twice' %}{{ part['text'] }}{% endif %}",
    )
    processor = templated(odd)
    with pytest.raises(CalibrationError, match=f"^the chat template {reason}$"):
        write(processor, texts)
    assert write(processor, TEXTS[0]) == official(TEXTS[0]), "the others are none the worse"


def test_the_line_names_the_checkpoint(templated: Callable[[str], Any]) -> None:
    processor = templated("hello")
    before = processor.tokenizer.name_or_path
    processor.tokenizer.name_or_path = "models/ocr"
    try:
        with pytest.raises(CheckpointError, match=r"^models/ocr: its chat template leaves out the text"):
            check_template(processor)
    finally:
        processor.tokenizer.name_or_path = before
