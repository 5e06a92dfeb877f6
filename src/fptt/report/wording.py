"""How the page of results writes numbers and names."""

from __future__ import annotations

from fptt.experiments.summary import Group, Spread

#: table -> heading and what was done, in the order of the page
TABLES = {
    "equal-memory": (
        "Equal training memory: TBPTT against FPTT",
        "Images and voices with the auxiliary loss, characters with a target at every step. FPTT "
        "keeps lambda and the running mean beside the activations of a part, so for the bytes of "
        "an FPTT run truncated BPTT can afford longer parts. The control is the best TBPTT "
        "configuration that fits in the bytes of the FPTT run.",
    ),
    "full": ("Full-size S-MNIST", "All 60,000 images, pixel by pixel."),
    "s-mnist": ("S-MNIST: sweep over K", "MNIST pixel by pixel, T = 784 in K parts."),
    "ps-mnist": ("PS-MNIST: sweep over K", "MNIST pixel by pixel in one permuted order."),
    "cifar10": ("Pixel CIFAR-10: sweep over K", "An image is a sequence of 1,024 pixels."),
    "add": ("Add task", "The sum of two marked numbers of a sequence; mean squared error."),
    "words": ("Language modelling by words", "Predict the next word; perplexity of the test text."),
    "char": (
        "Language modelling by characters",
        "Predict the next character; perplexity of the test text.",
    ),
    "programs": (
        "Beside the hand-written program",
        "MNIST by rows and by pixels, our engine and PyTorch on the same data.",
    ),
    "networks": (
        "BPTT and FPTT on the default and the simplified network",
        "With dropout and Adam, and with SGD, with momentum and without.",
    ),
    "spiking": ("Spiking networks", "Spiking neurons trained by FPTT and by BPTT."),
    "fsdd": ("Spoken digits (FSDD)", "Six speakers, digits as log-mel frames."),
}
TASKS = {
    "s-mnist": "S-MNIST",
    "ps-mnist": "PS-MNIST",
    "mnist-rows": "MNIST by rows",
    "cifar10": "Pixel CIFAR-10",
    "add": "Add task",
    "char": "Characters",
    "words": "Words",
    "fsdd": "Spoken digits (FSDD)",
    "fsdd-personal": "Spoken digits of a new speaker",
}
METRIC_NAMES = {
    "test_accuracy": "test accuracy",
    "test_loss": "test loss (mean squared error)",
    "test_perplexity": "test perplexity",
}


def axis_label(metric: str) -> str:
    return METRIC_NAMES[metric] + (" (%)" if metric == "test_accuracy" else "")


def scaled(metric: str, value: float) -> float:
    """A metric in the unit of the plots: accuracies in percent."""
    return 100 * value if metric == "test_accuracy" else value


def number(metric: str, value: float) -> str:
    """A metric for a table, without its unit.

    Example:
        >>> number("test_accuracy", 0.97654), number("test_perplexity", 104.372)
        ('97.65', '104.37')
        >>> number("test_loss", 0.0001234)
        '0.0001234'
    """
    return f"{value:.4g}" if metric == "test_loss" else f"{scaled(metric, value):.2f}"


def with_unit(metric: str, value: float) -> str:
    """A metric for running text.

    Example:
        >>> with_unit("test_accuracy", 0.5)
        '50.00 %'
    """
    return number(metric, value) + (" %" if metric == "test_accuracy" else "")


def signed(metric: str, value: float) -> str:
    """A difference of two metrics, with a true minus sign.

    Example:
        >>> signed("test_accuracy", -0.0123), signed("test_accuracy", 0.0)
        ('\N{MINUS SIGN}1.23', '0.00')
    """
    text = number(metric, abs(value))
    if float(text) == 0:
        return text
    return ("+" if value > 0 else "\N{MINUS SIGN}") + text


def spread_text(metric: str, found: Spread) -> str:
    """Mean and standard deviation.

    Example:
        >>> from fptt.experiments.summary import spread
        >>> spread_text("test_accuracy", spread([0.97, 0.98]))
        '97.50 ± 0.71'
    """
    text = number(metric, found.mean)
    return text if found.sd is None else f"{text} ± {number(metric, found.sd)}"


def duration(seconds: float) -> str:
    """A time.

    Example:
        >>> duration(3.21), duration(75), duration(8130)
        ('3.2 s', '1 min 15 s', '2 h 16 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds) // 60} min {int(seconds) % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,} h {minutes % 60} min"


def count(n: int, what: str) -> str:
    """A number of things.

    Example:
        >>> count(1, "seed"), count(12000, "run")
        ('1 seed', '12,000 runs')
    """
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def listed(words: list[str]) -> str:
    """Words as a sentence lists them.

    Example:
        >>> listed(["14", "28", "56"])
        '14, 28 and 56'
    """
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def panel_title(group: Group) -> str:
    """The task and the data of a group."""
    options = group.configuration.get("task_options") or {}
    named = [TASKS.get(group.task, group.task)]
    if group.steps is not None:
        named.append(f"T = {group.steps:,}")
    named += [f"{name} {value}" for name, value in options.items() if name != "steps"]
    if group.configuration.get("subset"):
        named.append("bundled subset")
    limit = group.configuration.get("limit")
    if limit:
        named.append(f"limited to {f'{limit:,}' if isinstance(limit, int) else limit}")
    return ", ".join(named)


def _brief(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def setting(group: Group) -> str:
    """How a group was trained, in words."""
    own = group.configuration
    words = [group.network or f"{own.get('cell', '?')} {own.get('hidden', '')}"]
    if group.parameters is not None:
        words[0] += f", {group.parameters:,} parameters"
    if group.train_sequences is not None:
        tested = "" if group.test_sequences is None else f", {group.test_sequences:,} for tests"
        words.append(f"{count(group.train_sequences, 'training sequence')}{tested}")
    if own.get("optimizer"):
        name = str(own["optimizer"])
        text = {"adam": "Adam", "sgd": "SGD"}.get(name, name)
        text += f" at {_brief(own['lr'])}" if own.get("lr") is not None else ""
        text += f", momentum {_brief(own['momentum'])}" if own.get("momentum") else ""
        text += f", {own['schedule']}" if own.get("schedule") else ""
        text += f", clip {_brief(own['clip'])}" if own.get("clip") else ""
        words.append(text)
    words.append(count(len(group.curve), "epoch"))
    if own.get("batch"):
        words[-1] += f", batch {own['batch']}"
    words += [str(own[name]) for name in ("dtype",) if own.get(name)]
    return "; ".join(words)
