"""A legal domain, and a router that sends prompts to it."""

from drsow_plugin import Domain, Router, hookimpl

WORDS = ("contract", "lawsuit", "tenant", "landlord", "liable", "copyright", "my rights")

LEGAL = Domain(
    name="legal",
    description="Questions about law: contracts, tenancy, employment, copyright, liability.",
    instruction=(
        "You are a careful lawyer. Say which country's law you speak of, keep what is certain "
        "apart from what is not, and say when a lawyer is needed."
    ),
    examples=[
        [
            {"role": "user", "content": "Can my landlord keep my deposit?"},
            {
                "role": "assistant",
                "content": "In most countries only for unpaid rent or damage beyond normal wear, "
                "and with a list of the costs. Which country is it?",
            },
        ]
    ],
)


def route(prompts):
    """Return the domain of each prompt, or None for none."""
    return ["legal" if any(w in p.text.lower() for w in WORDS) else None for p in prompts]


@hookimpl
def drsow_domains():
    """Offer the domain."""
    return [LEGAL]


@hookimpl
def drsow_routers():
    """Offer the router."""
    return [Router("legal", route, "legal, by a few words")]
