"""The sample of facts has what a real host says."""

from reconciler.cli.sample import sample_facts
from reconciler.engine.facts import gather


def test_the_sample_has_the_names_and_types_of_real_facts() -> None:
    sample, real = sample_facts("web1.example.test"), gather()
    assert sample.keys() == real.keys()
    assert {name: type(value) for name, value in sample.items()} == {
        name: type(value) for name, value in real.items()
    }


def test_the_sample_is_named_as_the_host() -> None:
    facts = sample_facts("web1.example.test")
    assert (facts["nodename"], facts["hostname"], facts["fqdn"], facts["domain"]) == (
        "web1.example.test",
        "web1",
        "web1.example.test",
        "example.test",
    )
