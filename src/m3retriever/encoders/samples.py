"""Short texts and queries, of our own, on which a new export is compared with fp32."""

from __future__ import annotations

from m3retriever.encoders.fidelity import Sample

ENGLISH = Sample(
    texts=(
        "Bread rises because yeast turns sugar into carbon dioxide, which stays in the dough as bubbles.",
        "Knead the dough for ten minutes, let it rest under a cloth, then bake it in a hot oven.",
        "A sourdough starter needs flour and water every day, and a warm place to stand.",
        "To sort a list in place call its sort method; sorted makes a new list and leaves the old one as it was.",
        "A dictionary keeps keys in the order in which they were added.",
        "TypeError: unsupported operand type(s) for +: 'int' and 'str'",
        "Open the file with an encoding, or the platform's default is used and umlauts break.",
        "The index is rebuilt when the server starts; until then searches answer from the old one.",
        "The invoice is due within thirty days; after that, interest of two percent a month is charged.",
        "A tenant may end the lease with three months' notice to the end of a month.",
        "Travel costs are refunded only with a receipt and the approval of the head of department.",
        "Parental leave can be taken in up to three parts within the first eight years.",
        "The river rose by four metres in a night and the lower town had to be left.",
        "Snow is expected above eight hundred metres, with strong wind from the north-west.",
        "The tide turns twice a day, a little later each time, following the moon.",
        "Whales breathe air and have to come to the surface, some of them after more than an hour.",
        "The heart pumps about five litres of blood a minute when the body is at rest.",
        "Wash the wound with clean water and cover it; see a doctor if it becomes red and warm.",
        "Paracetamol must not be taken for more than three days without medical advice.",
        "The train to the airport leaves every twenty minutes from platform 4, on Sundays every hour.",
        "Hold the reset button for ten seconds until the light blinks twice, then let go.",
        "Order number 4711-B: two brackets, eight screws M6x20, one spanner; delivered on 3 March.",
        "In 1687 a book appeared that explained falling apples and circling planets by one law.",
        "The painting shows a woman at a window, reading a letter, in light that comes from the left.",
    ),
    queries=(
        "how does bread rise",
        "sort a list in Python",
        "adding a number to a string fails",
        "when do I have to pay the bill",
        "ending a rental contract",
        "flood in the old town",
        "how long can a whale stay under water",
        "train to the airport on Sunday",
        "reset the device",
        "law of gravity",
    ),
)
CHINESE = Sample(
    texts=(
        "面团发酵时，酵母把糖变成二氧化碳，气泡留在面团里，面包就变得松软。",
        "揉面十分钟，盖上布静置，然后放进预热好的烤箱里烘烤。",
        "调用列表的 sort 方法会就地排序，sorted 则返回一个新的列表。",
        "打开文件时请指定编码，否则会使用系统默认编码，中文可能变成乱码。",
        "发票须在三十天内付清，逾期每月加收百分之二的利息。",
        "租客提前三个月通知，可以在月底终止租约。",
        "差旅费凭票据报销，并须经部门负责人批准。",
        "一夜之间河水上涨四米，下城的居民不得不撤离。",
        "海拔八百米以上预计有雪，并伴有强烈的西北风。",
        "鲸鱼用肺呼吸，有的可以在水下停留一个多小时。",
        "人在休息时，心脏每分钟大约泵出五升血液。",
        "用清水冲洗伤口并包扎好，如果红肿发热请及时就医。",
        "去机场的列车每二十分钟一班，在四号站台发车，星期天每小时一班。",
        "按住复位键十秒，等指示灯闪两下再松开。",
    ),
    queries=(
        "面包为什么会发酵",
        "怎样给列表排序",
        "发票什么时候付款",
        "终止租约要多久",
        "洪水撤离",
        "去机场的列车",
        "如何重置设备",
    ),
)
SAMPLE = Sample((*ENGLISH.texts, *CHINESE.texts), (*ENGLISH.queries, *CHINESE.queries))
