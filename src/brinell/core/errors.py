"""The exceptions of brinell: each message says the request, the fact, the place and the remedy.

    BrinellError
      SpecError          a component's text or fields are wrong                     (also ValueError)
      DataError          data cannot be read, or is not what it says it is          (also ValueError)
        SampleError      one sample cannot be read; the others can be measured
      NetworkError       a network cannot be made, called or recorded               (also ValueError)
        WeightsError     weights are unsafe, or do not fit the network
        TamperedNetwork  a perturbation wrote into the network it was given
      ThreatViolation    a perturbation left its threat or the domain               (also ValueError)
      UndefinedReading   a quantity has no value for this input                     (also ValueError)
      Diverged           training left the finite numbers (`harden.loop`)           (also ArithmeticError)
      StoreError         a run directory is unreadable or holds something else      (also ValueError)

The command line turns every `BrinellError` into one line and exit code 2; any other exception is a bug of ours.
"""


class BrinellError(Exception):
    """Base of everything brinell raises on purpose."""


class SpecError(BrinellError, ValueError):
    """A component's text does not parse, names nothing known, or a field is out of its range."""


class DataError(BrinellError, ValueError):
    """Data cannot be read or contradicts itself; the message names the file and the row."""


class SampleError(DataError):
    """One sample cannot be read, whatever the others are: a damaged image, a file that went away. A lab goes on without it."""


class NetworkError(BrinellError, ValueError):
    """A network cannot be built, called, or looked into."""


class WeightsError(NetworkError):
    """A weights file is unsafe to load or does not fit the network it is meant for."""


class TamperedNetwork(NetworkError):
    """A perturbation changed the parameters of the network under test; the run stops, what was finished before is kept."""


class ThreatViolation(BrinellError, ValueError):
    """A perturbed sample lies outside the threat it was promised to stay in."""


class UndefinedReading(BrinellError, ValueError):
    """A quantity is not defined for this input; the message says why and what to do instead."""


class StoreError(BrinellError, ValueError):
    """A run directory cannot be used: it is damaged, or it holds a different plan."""
