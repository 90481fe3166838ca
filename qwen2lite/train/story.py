r"""Short stories of the course's small world, in English that a tiny model can learn whole.

A story is a plot with its blanks filled in: a plot is a list of beats, a beat is a few ways to say
the same thing. The blanks stay filled for the whole story, so the thing that is lost is the thing
that is found.
"""

import random
from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")

HEROES = (
    "Pip the fox", "Dot the mouse", "Moss the bear", "Fern the deer", "Bo the frog",
    "Tilly the hen", "Grub the mole", "Sunny the bee", "Rolf the wolf", "Midge the hare",
    "Olga the owl", "Quill the crow", "Bram the badger", "Nell the newt", "Wisp the moth",
    "Hob the toad",
)  # fmt: skip
"""None is a person or has a person's name, so that no story contradicts a fact."""
PLACES = (
    "garden", "river", "old mill", "market", "bridge", "hill", "barn", "pond", "orchard", "beach",
    "wood", "well",
)  # fmt: skip
COLOURS = ("red", "blue", "green", "yellow", "white", "black", "brown", "grey")
THINGS = (
    "kite", "ball", "lamp", "hat", "boat", "key", "cup", "drum", "basket", "bell", "scarf", "book",
    "ladder", "coin", "button", "blanket",
)  # fmt: skip
HIDDEN = (
    "under the bench", "behind the gate", "in the tall grass", "on the roof", "beside the wall",
    "in the hollow tree", "near the water", "between two stones",
)  # fmt: skip
WEATHER = ("sunny", "windy", "rainy", "foggy", "snowy", "cold", "warm", "cloudy")
ENDINGS = ("sang a song", "shared a cake", "ran home", "watched the stars", "drank warm milk",
           "danced in a ring", "told jokes", "had a long rest")  # fmt: skip

LOST = (
    ("One {weather} morning {hero} lost a {colour} {thing}.",
     "It was a {weather} day, and {hero} had lost a {colour} {thing}.",
     "{hero} once had a {colour} {thing}, but one {weather} day it was gone."),
    ("{name} looked for it all around the {place}.",
     "{name} went to the {place} and looked everywhere.",
     "So {name} walked to the {place} to look for it."),
    ('There stood {friend}. "Have you seen my {thing}?" asked {name}.',
     '"Did you see a {colour} {thing}?" {name} asked {friend}.',
     '{friend} came by. "What are you looking for?" "For my {colour} {thing}," said {name}.'),
    ('"Yes, it is {hidden}," said {other}.',
     '"I saw a {thing} {hidden}," said {other}.',
     '{other} thought for a while and said, "Look {hidden}!"'),
    ("And there, {hidden}, lay the {colour} {thing}.",
     "They looked {hidden}, and there was the {thing}.",
     "{name} looked {hidden} and found the {colour} {thing} at last."),
    ('"Thank you!" said {name}. Then they {ending}.',
     "{name} was happy, and the two friends {ending}.",
     "After that {name} and {other} {ending}."),
)  # fmt: skip
GIFT = (
    ("{hero} wanted to give {friend} something nice.",
     "It was the birthday of {friend}, and {hero} had no present yet.",
     "{friend} was sad on a {weather} day, so {hero} had an idea."),
    ("At the {place} {name} found a {colour} {thing}.",
     "{name} went to the {place} and came back with a {colour} {thing}.",
     "{name} took some wood and paint and made a {colour} {thing}."),
    ("{name} hid the {thing} {hidden}.",
     "Nobody should see it yet, so {name} put the {thing} {hidden}.",
     "The {colour} {thing} had to wait {hidden}."),
    ('"Close your eyes," said {name}. "Now look {hidden}!"',
     '"There is something for you {hidden}," {name} told {other}.',
     'In the evening {name} led {other} to the {place} and said, "Look {hidden}."'),
    ('"A {colour} {thing}!" cried {other}. "How did you know?"',
     '{other} found the {thing} and laughed. "I love {colour} things!"',
     "When {other} saw the {colour} {thing}, all sadness was gone."),
    ("The friends {ending} until it was dark.",
     "Then {other} and {name} {ending}.",
     "They {ending}, and it was the best day of the year."),
)  # fmt: skip
STORM = (
    ("A storm came to the {place}, and {hero} was afraid.",
     "{hero} was at the {place} when the rain began.",
     "One night the wind blew hard around the {place}, and {hero} could not sleep."),
    ('"Come in," called {friend}. "My house is dry."',
     "{friend} heard it and opened the door.",
     "Then {friend} came with a lamp and took {name} home."),
    ("But the wind had taken the {colour} {thing} of {name}.",
     '"My {thing} is still out there!" said {name}. "It is {colour}, and I need it."',
     "{name} had left a {colour} {thing} behind."),
    ('"We will look for it when the storm is over," said {other}.',
     '{other} said, "Do not cry. Tomorrow we will find it."',
     '"First we wait," said {other}, "and then we go together."'),
    ("In the morning the {thing} lay {hidden}.",
     "The next day they found the {colour} {thing} {hidden}.",
     "When the sun came out, they looked {hidden}, and there it was."),
    ("{name} thanked {other}, and they {ending}.",
     "They were so glad that they {ending}.",
     '"You are a good friend," said {name}. Then they {ending}.'),
)  # fmt: skip
PLOTS = (LOST, GIFT, STORM)


def pick(items: Sequence[Item], rng: random.Random) -> Item:
    """Draws one item.

    Only `random()` is promised to give the same numbers in every version of Python; `choice` and
    `shuffle` are not, and they are slower.
    """
    return items[int(rng.random() * len(items))]


def shuffled(items: Sequence[Item], rng: random.Random) -> list[Item]:
    """The items in an order drawn with `random()` alone, as in `pick`."""
    return sorted(items, key=lambda _: rng.random())


def story(rng: random.Random) -> str:
    """Tells a story of six beats: about 60 words."""
    return " ".join(story_sentences(rng))


def story_sentences(rng: random.Random) -> list[str]:
    """The beats of a story, each a sentence or two."""
    hero, friend = shuffled(HEROES, rng)[:2]
    blanks = {
        "hero": hero,
        "friend": friend,
        "name": hero.split()[0],
        "other": friend.split()[0],
        "place": pick(PLACES, rng),
        "colour": pick(COLOURS, rng),
        "thing": pick(THINGS, rng),
        "hidden": pick(HIDDEN, rng),
        "weather": pick(WEATHER, rng),
        "ending": pick(ENDINGS, rng),
    }
    return [pick(beat, rng).format_map(blanks) for beat in pick(PLOTS, rng)]
