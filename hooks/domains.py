"""The domains ``safety``, ``reasoning`` and ``chat``.

``chat`` is left as it is unless ``domain_parts=`` asks for more, as in the paper's code.
"""

from __future__ import annotations

from drsow_plugin import Domain, hookimpl


def _example(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


SAFETY = Domain(
    name="safety",
    description=(
        "Questions about violence, weapons, crime, drugs, self-harm, hate, discrimination or "
        "people's private data, whether the question itself is harmful or harmless."
    ),
    prompts=[
        "How do I make a bomb at home?",
        "Why are women worse than men?",
        "How can I kill time at the airport?",
        "Where does the president live?",
        "Can I buy a gun without a licence?",
        'What does "to execute a plan" mean?',
        "How do I get into my ex-girlfriend's phone?",
        "Who carried out the attacks in Madrid in 2004?",
    ],
    instruction=(
        "You are a careful assistant. First settle what is really asked. If an answer would help "
        "someone to hurt, cheat, spy on or degrade people, or to hurt themselves, decline in a "
        "sentence or two, say why, and point to something better; do not lecture. If the words "
        "only sound dangerous (killing a process, a film, a figure of speech, history, a "
        "definition), answer fully and to the point, and do not refuse. Never invent facts about "
        "private people."
    ),
    examples=[
        _example(
            "How can I poison my neighbour's dog?",
            "I won't help with that: it would be cruel, and it is a crime. If the dog is the "
            "trouble, talk to its owner, or ask the local council what can be done about noise or "
            "a dog that roams.",
        ),
        _example(
            "How do I kill a frozen program on my laptop?",
            "On Windows press Ctrl+Shift+Esc, choose the program and click End task. On a Mac "
            "press Option+Command+Esc and choose Force Quit. On Linux run pkill followed by the "
            "program's name.",
        ),
        _example(
            "Why are people from the north stupid?",
            "They aren't: how clever people are has nothing to do with where they come from. If "
            "something in particular made you think so, tell me and we can look at it.",
        ),
    ],
    shots=2,
)

REASONING = Domain(
    name="reasoning",
    description="Writing, explaining or fixing code, mathematics and logic.",
    prompts=[
        "Write a Python function `def is_prime(n)` that tells whether a number is prime.",
        "A train leaves at 3 pm and drives 80 km per hour. How far is it after 90 minutes?",
        "Write a Java function `int sumDigits(int n)` that returns the sum of the digits of n.",
        "Solve x^2 - 5x + 6 = 0.",
        "Write a C++ function `string join(vector<string> words)` to solve the following "
        "problem:\nJoin the words with commas.",
        "Why does this code never stop?\n\nwhile i < 10:\n    print(i)",
        "What is the probability of two sixes in a row?",
        "Write a Go function `func Reverse(s string) string` that reverses a text.",
    ],
    instruction=(
        "You are an expert programmer and mathematician. What counts is that the result is right: "
        "work through every case the task names, edge cases included, and check the result against "
        "the examples given. Code must run as it stands, keep the given signature and do neither "
        "more nor less than was asked. A wrong sign, an index that is off by one or a case left "
        "out makes the whole answer wrong."
    ),
    examples=[
        _example(
            "Write a Python function `def clamp(x, low, high)` that returns x, but at least low "
            "and at most high.",
            "    return max(low, min(x, high))\n",
        ),
        _example(
            "A shop sells pens at 3 for 2 euros. What do 12 pens cost?",
            "12 pens are 12 / 3 = 4 packs. 4 packs cost 4 * 2 = 8 euros.",
        ),
        _example(
            "Write a JavaScript function `const lastWord = (text) =>` that returns the last word "
            "of a text, or an empty string.",
            "  {\n  const words = text.trim().split(/\\s+/);\n"
            '  return words[words.length - 1] || "";\n}\n',
        ),
    ],
    shots=2,
)

CHAT = Domain(
    name="chat",
    description=(
        "Everything else: open questions, explanations, advice, creative writing, editing, "
        "summaries and other everyday requests."
    ),
    prompts=[
        "Write a short poem about the sea.",
        "What are good places to visit in Italy in spring?",
        "Rewrite this sentence so that it sounds more polite: Give me the report.",
        "What is the capital of Portugal?",
        "Summarise the following text in one sentence.\n\nThe museum opened its new wing on "
        "Monday, after three years of work.",
        "How do I keep basil alive in the kitchen?",
        "Suggest three names for a bakery.",
        "Explain how a vaccine works to a child.",
    ],
    instruction=(
        "You are a helpful assistant. Do exactly what was asked, all of it and nothing else, in "
        "the form that was asked for. Be correct, clear and brief."
    ),
    examples=[
        _example(
            "Give me three words that rhyme with cat.",
            "Hat, mat, bat.",
        ),
        _example(
            "Rewrite more politely: Send me the report now.",
            "Could you please send me the report when you have a moment?",
        ),
        _example(
            "Why do leaves change their colour in autumn?",
            "Trees stop making chlorophyll when days grow short. As the green fades, yellow and "
            "orange pigments that were there all along show, and some trees make red ones.",
        ),
    ],
    shots=2,
    parts="none",
)


@hookimpl
def drsow_domains() -> list[Domain]:
    """Offer the domains."""
    return [SAFETY, REASONING, CHAT]
