"""Words that say little about a text. Negations (not, never, 不, 没 ...) and contrasts (but, too, 但) are none of them."""


def _words(text: str) -> frozenset[str]:
    """Split words that stand in one string, where a list would fill a page."""
    return frozenset(text.split())


ENGLISH = _words(
    "a an the about above across after along among around as at before behind below beneath beside between beyond by during for "
    "from in inside into near of on onto over since through throughout to toward towards under until upon via with within and or "
    "if because while i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his himself she her "
    "hers herself it its itself they them their theirs themselves this that these those who whom whose which what am is are was "
    "were be been being have has had having do does did doing will would shall should can could may might must i'm i've i'll i'd "
    "you're you've you'll you'd he's he'll he'd she's she'll she'd it's it'll it'd we're we've we'll we'd they're they've they'll "
    "they'd that's there's who's what's let's"
)

CHINESE = _words(
    "的 地 得 了 着 著 过 過 之 啊 呢 吧 吗 嗎 呀 嘛 哦 和 与 與 及 以及 而 而且 并 並 并且 或 "
    "或者 因为 因為 所以 如果 在 于 於 从 從 对 對 "
    "对于 對於 关于 關於 把 被 以 为 為 上 中 里 裡 是 也 就 都 我 我们 我們 你 你们 你們 您 他 他们 他們 她 "
    "她们 她們 它 它们 它們 自己 其 这 這 那 这个 這個 "
    "那个 那個 这些 這些 那些 一个 一個 一些 一种 一種"
)
