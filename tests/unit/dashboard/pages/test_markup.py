"""HTML in which everything from outside is text."""

from dashboard.pages import markup


def test_markup_is_text():
    assert markup.escape("<b>&\"'") == "<bdi>&lt;b&gt;&amp;&quot;&#x27;</bdi>"


def test_facts_without_a_value_are_left_out():
    assert markup.facts([("Known", "1"), ("Unknown", "")]).count("<tr>") == 1
