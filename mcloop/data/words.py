"""The words of the story grammar, slot by slot, the more frequent first."""

from __future__ import annotations

GIRLS = ("Lily", "Mia", "Rosa", "Nora", "Ivy", "Clara", "Zoe", "Hana", "Wren", "Petra", "Olga", "Tamsin")
BOYS = ("Tom", "Ben", "Max", "Leo", "Sam", "Finn", "Hugo", "Kofi", "Otto", "Ravi", "Jonas", "Milo")

# one word each; every one may follow "a" or "the"
SLOTS = {
    "mood": "happy kind curious cheerful gentle brave clever quiet merry shy playful polite bold dreamy lively".split(),
    "home": "house cottage castle cabin tower windmill lighthouse tent farmhouse houseboat treehouse hut".split(),
    "place": """forest garden park meadow village valley orchard market field barn courtyard woods harbour vineyard
        fairground desert marsh canyon""".split(),
    "friend": """rabbit fox squirrel mouse hedgehog frog badger duck bear robin goat mole tortoise beaver pony crow kitten
        puppy deer sparrow snail goose lamb turtle swan hen cricket raccoon weasel peacock""".split(),
    "nature": "little friendly wise funny sleepy small grey fluffy young tall lonely tiny grumpy patient freckled".split(),
    "colour": """red blue green yellow shiny golden white brown purple silver pink striped spotted wooden painted
        patched round rusty crooked polished""".split(),
    "kin": "mother father grandmother grandfather sister brother cousin teacher neighbour godmother".split(),
    "day": "morning afternoon day evening Monday Saturday Sunday weekend holiday Tuesday".split(),
    "weather": "sunny warm bright windy cold rainy cloudy foggy frosty snowy misty breezy".split(),
    "went": "walked ran went skipped hurried wandered marched danced strolled tiptoed hopped trotted".split(),
    "hide": "bush tree bench bridge leaf stone log table haystack fence bramble mushroom stump cartwheel".split(),
    "food": """bread soup cake honey cheese jam milk porridge berries pancakes biscuits apples chestnuts carrots noodles
        dumplings plums pudding""".split(),
    "play": "hummed sang jumped laughed played raced splashed whistled giggled twirled climbed cheered".split(),
    "sad": "sad worried upset lonesome gloomy sorry frightened cross weary puzzled".split(),
    "glad": "glad proud thankful joyful pleased delighted relieved calm merry excited".split(),
    "lesson": "kindness friendship patience courage sharing honesty help care trust hope".split(),
}

# the long-tailed slot: plain things first, then compounds of the two lists below; none of them is said anywhere else
THINGS = """ball kite doll drum hat bell book boat whistle lantern scarf button balloon flute basket key marble puppet ring
    spoon teapot train wagon mirror feather shell pebble coin ribbon robot rocket puzzle crown mask mitten slipper blanket
    pillow candle clock compass map rattle fiddle trumpet harp sled thimble brooch locket purse telescope globe""".split()
FIRST = """moon star sun cloud rain snow wind river honey sugar ginger plum cherry pepper tin copper paper velvet glass
    clay straw wool silk cork pine willow shadow thunder music dream tea pocket birthday winter poppy""".split()
SECOND = """boat drum kite bell lantern cart wagon whistle doll ball hat crown cup box basket flute rattle wheel clock chest
    candle mask cloak fiddle horse bear dragon duck fish rabbit rocket train sled house""".split()


def thing_words(count: int) -> list[str]:
    """The first `count` words of the long-tailed slot.

    35 and 34 have no common factor, so the i-th compound, FIRST[i mod 35]-SECOND[i mod 34], repeats only after 35 x 34, and
    neighbours in rank share no part.
    """
    compounds = (f"{FIRST[i % len(FIRST)]}-{SECOND[i % len(SECOND)]}" for i in range(count - len(THINGS)))
    return [*THINGS[:count], *compounds]


MOST = len(THINGS) + len(FIRST) * len(SECOND)  # words that the long-tailed slot can have
