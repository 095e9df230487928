"""The plots of the story grammar: beats in order, each a choice of weighted lines; an empty line leaves the beat out.

`{slot}` is a word of a slot: drawn where a story first mentions it, and the same wherever it is mentioned again. `{hero.he}`
is another form of the same draw. No two lines of a beat can begin with the same words (a test holds every pair apart), and
the first beat after the opening gives the plot away, so that a story can have come about in one way only.
"""

from __future__ import annotations

Beat = tuple[tuple[float, str], ...]

OPENING: tuple[Beat, ...] = (
    (
        (5, "Once upon a time there was a {mood} {hero.child} named {hero}."),
        (3, "Once there was a {mood} {hero.child} whose name was {hero}."),
        (2, "There lived a {mood} {hero.child} called {hero}."),
        (1, "This is the story of {hero}, a {mood} {hero.child}."),
    ),
    (
        (4, "{hero.He} lived in a {home} near the {place}."),
        (2, "{hero} lived with {hero.his} {kin} in a {home}."),
        (1, "There was always {food} in {hero.his} {home}."),
        (2, ""),
    ),
)

ENDING: tuple[Beat, ...] = (
    (
        (3, "Then they ate {food} together."),
        (2, "After that they {play} until night."),
        (1, "The {friend} danced on one leg."),
        (3, ""),
    ),
    (
        (3, "From that day on {hero} and the {friend} were friends."),
        (2, "That night the {thing} stood beside {hero.his} bed."),
        (2, "And {hero} never forgot the {friend} and the {colour} {thing}."),
        (2, "{hero} had learned something about {lesson}."),
    ),
    ((4, "The end."), (1, "And all was well."), (3, "")),
)

LOST: tuple[Beat, ...] = (
    (
        (3, "{hero} loved {hero.his} {colour} {thing} more than anything."),
        (2, "What {hero} loved most was a {colour} {thing}."),
        (1, "Every night {hero} slept beside {hero.his} {colour} {thing}."),
    ),
    (
        (3, "One {weather} {day} the {thing} was gone!"),
        (2, "But on a {weather} {day} the {thing} was lost."),
        (1, "Then came a {weather} {day}, and the {thing} was not there."),
    ),
    (
        (3, "{hero.He} looked under the bed."),
        (2, "{hero} felt very {sad} and began to cry."),
        (1, '"Where is my {thing}?" {hero.he} asked.'),
        (1, ""),
    ),
    (
        (3, "{hero} {went} to the {place} and met a {nature} {friend}."),
        (2, "A {nature} {friend} came out of the {place}."),
    ),
    (
        (2, '"Do not cry," said the {friend}.'),
        (2, '"Please help me find my {thing}," said {hero}.'),
        (1, "The {friend} sniffed at the ground."),
    ),
    (
        (3, "They looked high and low."),
        (2, "First they looked by the river."),
        (1, "The {friend} asked the birds."),
        (2, ""),
    ),
    (
        (3, "At last they saw something {colour} under a {hide}."),
        (2, "Suddenly the {friend} stopped beside a {hide}."),
    ),
    (
        (3, "It was the {thing}! {hero} hugged the {friend}."),
        (2, "There was the {thing}, and {hero} was {glad}."),
    ),
)

FOUND: tuple[Beat, ...] = (
    (
        (3, "One {weather} {day} {hero} {went} through the {place}."),
        (2, "On a {weather} {day} {hero.he} was in the {place}."),
    ),
    (
        (3, "Under a {hide} {hero.he} found a {colour} {thing}."),
        (2, "Beside a {hide} lay a {colour} {thing}."),
        (1, "Behind a {hide} was a {colour} {thing}."),
    ),
    (
        (3, '"What a lovely {thing}!" said {hero}.'),
        (2, "{hero} wanted to take it home at once."),
        (1, "{hero.He} picked it up and held it to the light."),
        (2, ""),
    ),
    (
        (3, "But then {hero.he} heard a {nature} {friend} cry."),
        (2, "Just then a {nature} {friend} came, very {sad}."),
    ),
    (
        (3, '"I have lost my {thing}," said the {friend}.'),
        (2, '"Have you seen my {thing}?" asked the {friend}.'),
    ),
    (
        (2, "{hero} hid it behind {hero.his} back."),
        (2, "{hero} thought of {hero.his} {kin}."),
        (1, "It was not easy, for {hero} liked it."),
        (2, ""),
    ),
    (
        (3, "{hero} gave the {thing} back at once."),
        (2, '"Here is your {thing}," said {hero}.'),
    ),
    (
        (3, '"Come and play!" said the {friend}.'),
        (2, '"You are kind," said the {friend}.'),
    ),
)

BROKEN: tuple[Beat, ...] = (
    (
        (3, "For {hero.his} birthday {hero} got a {colour} {thing} from {hero.his} {kin}."),
        (2, "{hero.His} {kin} once gave {hero.him} a {colour} {thing}."),
    ),
    (
        (3, "One {weather} {day} {hero.he} took it to the {place}."),
        (2, "On {weather} days {hero.he} {play} with it in the {place}."),
        (1, "{hero.He} showed it to everybody in the {place}."),
    ),
    (
        (3, "Then {hero.he} tripped, and the {thing} broke."),
        (2, "But the {thing} fell from a {hide} and broke."),
        (1, "A strong wind blew the {thing} against a {hide}."),
    ),
    (
        (3, "{hero} was so {sad} that {hero.he} could not speak."),
        (2, '"Oh no!" cried {hero}.'),
        (1, "The pieces lay on the ground."),
    ),
    (
        (3, "A {nature} {friend} came by with some tools."),
        (2, "There was a {nature} {friend} who could mend things."),
    ),
    (
        (2, '"I can help," said the {friend}.'),
        (2, '"Let me see," said the {friend}.'),
        (1, '"Can you help me?" asked {hero}.'),
    ),
    (
        (3, "They worked with glue until it was dark."),
        (2, "{hero} held the pieces very still."),
        (1, "It took a long time."),
    ),
    (
        (3, "Now the {thing} was whole, and {hero} was {glad}."),
        (2, "In the end {hero} loved the {thing} even more."),
    ),
)

EARNED: tuple[Beat, ...] = (
    (
        (3, "In a shop in the {place} was a {colour} {thing}."),
        (2, "How {hero} wished for a {colour} {thing}!"),
    ),
    (
        (3, "But {hero.he} had no money at all."),
        (2, '"We are poor," said {hero.his} {kin}.'),
        (1, '"Work for it," said {hero.his} {kin}.'),
    ),
    (
        (3, "So {hero} {went} out to find work."),
        (2, "{hero} thought about it all night."),
        (1, ""),
    ),
    (
        (3, "On a {weather} {day} {hero.he} met a {nature} {friend}."),
        (2, "One {weather} {day} a {nature} {friend} needed help."),
    ),
    (
        (3, '"Let me help you," said {hero}.'),
        (2, "{hero} did not wait and helped at once."),
        (1, "It was hard work."),
    ),
    (
        (2, "They pushed and pulled and puffed."),
        (2, "{hero.He} worked until {hero.his} hands were sore."),
        (1, "It took the whole {day}."),
        (1, ""),
    ),
    (
        (3, '"Thank you," said the {friend}.'),
        (2, '"Thank you so much," said the {friend}.'),
    ),
    (
        (3, "Soon the {thing} stood at the door."),
        (2, "And in a box was the {thing}!"),
        (1, "It gave {hero.him} coins for the {thing}."),
    ),
    ((3, "{hero} {play} all the way home."), (2, "")),
)

SHARED: tuple[Beat, ...] = (
    (
        (3, "{hero} had a {nature} {friend} for a friend."),
        (2, "Next door lived a {nature} {friend}."),
    ),
    (
        (3, "One {weather} {day} they found a {colour} {thing} in the {place}."),
        (2, "On a {weather} {day} a {colour} {thing} lay under a {hide}."),
        (1, "Somebody gave them a {colour} {thing} to play with."),
    ),
    (
        (3, '"I saw the {thing} first," said {hero}.'),
        (2, "Both of them wanted the {thing}."),
        (1, "They pulled at the {thing} from both ends."),
    ),
    (
        (3, '"It is mine!" said the {friend}.'),
        (2, "The {friend} shouted, and {hero} shouted back."),
        (1, "{hero} took the {thing} and ran away."),
    ),
    (
        (3, "Soon they were both alone and {sad}."),
        (2, "Nobody {play} that {day}."),
        (1, "The {home} was very quiet."),
    ),
    (
        (3, '"A {thing} is fun for two," said {hero.his} {kin}.'),
        (2, '{hero} {went} back and said, "I am sorry."'),
        (1, "At last the {friend} came back with some {food}."),
    ),
    (
        (3, '"The {thing} is ours," said the {friend}.'),
        (2, '"You can have it today," said {hero}.'),
        (1, "They made a rule, and both kept it."),
    ),
    ((3, "It was the best {day} of all."), (2, "")),
)

STORM: tuple[Beat, ...] = (
    (
        (3, "It was a {weather} {day}, and a storm came."),
        (2, "Dark clouds came over the {place} one {weather} {day}."),
    ),
    (
        (3, "{hero} was out with {hero.his} {colour} {thing}."),
        (2, "{hero.He} {went} home with {hero.his} {colour} {thing}."),
    ),
    (
        (3, "The wind dropped the {thing} in the river."),
        (2, "Whoosh! The wind carried the {thing} over a {hide}."),
    ),
    (
        (3, '"Come back!" cried {hero}.'),
        (2, "{hero} ran after it, but it was too far."),
        (1, "The rain fell, and {hero.he} felt {sad}."),
    ),
    (
        (3, "A {nature} {friend} saw it all from its hole."),
        (2, "On the other side sat a {nature} {friend}."),
        (1, '"Who is there?" asked a {nature} {friend}.'),
    ),
    (
        (3, "The {friend} jumped after the {thing}."),
        (2, '"I am quick," said the {friend}.'),
        (1, '"Wait here," said the {friend}.'),
    ),
    (
        (3, "Soon it came back with the {thing}."),
        (2, "Down came the {thing}, and {hero} caught it."),
    ),
    (
        (3, '"Come in!" said {hero}.'),
        (2, "{hero.His} {kin} gave them hot {food} by the fire."),
        (1, "{hero} was {glad} and hugged the {friend}."),
    ),
)

PLOTS: tuple[tuple[float, tuple[Beat, ...]], ...] = tuple(
    (weight, (*OPENING, *plot, *ENDING))
    for weight, plot in ((6, LOST), (5, FOUND), (4, BROKEN), (4, EARNED), (3, SHARED), (2, STORM))
)
