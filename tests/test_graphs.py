"""Steps that a CUDA graph can hold: nothing in them waits for the device, and all of it is on the device.

No GPU is needed but for the last tests, which say so when they are skipped. What only a GPU can show is whether the
capture itself works.
"""

import contextlib

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from adbench_baselines import latent_search
from adbench_baselines.layers import Average, dcgan_init, restart_where
from adbench_tgan import Detector, ImageSet, TrainSet, captured, graphs, stepper, training
from adbench_tgan.graphs import WARMUP, Captured, Recording
from adbench_tgan.registry import Registry
from adbench_tgan.testing import smooth_images
from adbench_tgan.torch_settings import precision
from adbench_tgan.training import seed_everything

REGISTRY = Registry.discover()
SHAPE = (3, 32, 32)
TRAINED = [name for name in REGISTRY.names("detector") if REGISTRY.detector(name).fit is Detector.fit]
WALKING = ["anogan", "transgan_anogan"]
WAITING = (
    "_local_scalar_dense item is_nonzero nonzero masked_select equal unique_dim _unique2 unique_consecutive "
    "repeat_interleave bincount allclose"
).split()


class Watch(TorchDispatchMode):
    """Fails on operations that would make the host wait for a GPU, or whose result has a size of its own."""

    def __init__(self):
        super().__init__()
        self.paused = False
        self.seen = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.seen += 1
        name = function.overloadpacket.__name__
        if not self.paused:
            assert name not in WAITING, f"{name} waits for the device"
            if name in ("index", "index_put", "index_put_", "_unsafe_index"):
                by_mask = [index for index in args[1] if index is not None and index.dtype == torch.bool]
                assert not by_mask, f"{name} by a mask waits for the device"
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "waits",
    [
        lambda x: float(x.sum()),
        lambda x: bool(x.sum() > 0),
        lambda x: x[x > 0],
        lambda x: x.masked_select(x > 0),
        lambda x: x.nonzero(),
        lambda x: torch.where(x > 0),
    ],
)
def test_the_watch_sees_what_waits(waits):
    with Watch(), pytest.raises(AssertionError, match="waits for the device"):
        waits(torch.ones(3))


@pytest.fixture
def watched(monkeypatch):
    """Run the first two calls of every captured function under watch, and none after; tell of what was watched."""
    watch = Watch()
    functions = []

    def call(self, *inputs):
        functions.append(self) if self not in functions else None
        self.warmup -= 1
        if self.warmup > WARMUP - 3:
            with watch:
                self.last = graphs._detached(self.function(*inputs))
        return self.last

    def unwatched(step):
        def without(self, *args):  # on a GPU the optimisers are others: see the tests with fake tensors
            watch.paused = True
            result = step(self, *args)
            watch.paused = False
            return result

        return without

    monkeypatch.setattr(Captured, "__call__", call)
    for optimizer in (torch.optim.Adam, torch.optim.RMSprop):
        monkeypatch.setattr(optimizer, "step", unwatched(optimizer.step))
    return watch, functions


def train_set(name):
    labelled = REGISTRY.find("detector", name).supervision == "labelled"
    anomalies = ImageSet(255 - smooth_images(16, SHAPE, seed=2)) if labelled else None
    return TrainSet(ImageSet(smooth_images(40, SHAPE, seed=0)), anomalies)


def built(name, device="cpu", **settings):
    seed_everything(0)
    detector = REGISTRY.detector(name)
    return detector(detector.Config(**(detector.presets["quick"] | settings)), device=device)


def test_every_trained_detector_is_among_those_tested():
    assert {"anogan", "f_anogan", "egbad", "ganomaly", "skip_ganomaly", "sagan", "anotrans"} < set(TRAINED)
    assert {"transgan_anogan", "transgan_dual"} < set(TRAINED)


@pytest.mark.parametrize("name", TRAINED)
def test_no_step_waits_for_the_device(name, watched):
    watch, functions = watched
    built(name).fit(train_set(name))
    assert len(functions) == {"f_anogan": 2, "transgan_dual": 2}.get(name, 1)
    assert watch.seen > 100


@pytest.mark.parametrize("name", WALKING)
def test_no_step_of_a_walk_waits_for_the_device(name, watched, monkeypatch):
    detector = built(name, patience=2)
    detector.build(SHAPE)
    for network in detector.networks.values():
        network.eval()
    monkeypatch.setattr(
        latent_search,
        "walk",
        lambda *args, **options: latent_search.walk_captured(detector, *args, **options),
    )
    watch, functions = watched
    assert detector.score(smooth_images(4, SHAPE, seed=1)).isfinite().all()
    assert functions
    assert watch.seen > 100


def bowl(z, centre, scale):
    return scale * ((z - centre).square() * torch.tensor([1.0, 5.0, 0.2])).sum(1) + 1


class Walker(Detector):
    """A detector for those that only need its device and its notes."""

    def score(self, images):
        raise NotImplementedError


@pytest.mark.parametrize("options", [{}, {"clip": 0.3}, {"patience": 10, "tolerance": 0.01}])
def test_the_captured_walk_ends_where_the_other_one_does(options):
    draw = torch.Generator().manual_seed(0)
    centre, z0 = torch.randn(2, 5, 3, generator=draw).unbind()
    z0[0] = centre[0] + 1e-3
    targets = (centre, 10.0 ** torch.arange(-2, 3))
    rates = [0.1] * 40 + [0.02] * 40
    one = latent_search.walk(bowl, targets, z0, rates, **options)
    other = latent_search.walk_captured(Walker(), bowl, targets, z0, rates, **options)
    assert torch.equal(one, other)


def test_the_captured_walk_ends_early_when_all_images_have_stopped():
    steps = []

    def flat(z):
        steps.append(1)
        return (z * 0).sum(1) + 1

    latent_search.walk_captured(Walker(), flat, (), torch.ones(3, 2), [0.1] * 100, patience=10, tolerance=0.1)
    assert len(steps) == 11


class FakeCapture:
    """Calls a function as it is, and remembers what it was given."""

    def __init__(self, function, device, notes, *, plain=False):
        self.function = function

    def __call__(self, *inputs):
        return graphs._detached(self.function(*inputs))


@pytest.fixture
def fake_gpu(monkeypatch):
    """Tensors without contents that believe to be on a GPU. There is no backward pass: gradients are made up."""
    mode = FakeTensorMode()

    def backward(loss):
        assert loss.device.type == "cuda"
        assert loss.shape == ()
        for parameter in mode.parameters:
            if parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)

    def grad(outputs, inputs, create_graph=False):
        assert outputs.device.type == "cuda"
        return (torch.zeros_like(inputs) * outputs,)

    def on(self, device):
        return torch.zeros(self._pixels.shape, dtype=torch.uint8, device=device)

    monkeypatch.setattr(training, "Captured", FakeCapture)
    monkeypatch.setattr(ImageSet, "on", on)
    monkeypatch.setattr(torch.Tensor, "backward", backward)
    monkeypatch.setattr(torch.autograd, "grad", grad)
    monkeypatch.setattr(nn.Module, "to", lambda self, *_, **__: self)  # they are made there
    monkeypatch.setattr(nn.init, "trunc_normal_", lambda tensor, **_: tensor)  # looks at what it draws
    monkeypatch.setattr(FakeTensorMode, "__deepcopy__", lambda self, _: self, raising=False)
    return mode


ON_FAKE_GPU = {
    "transgan_dual": {"backbone": "none", "epochs": 1},
    "f_anogan": {"gan_steps": 2, "encoder_steps": 2},
    "egbad": {"steps": 2},
    "anogan": {"iterations": 2},
    "transgan_anogan": {"iterations": 2, "n_critic": 2},
}


# The file that anomalib_stfpm's weights come from cannot be read into fake tensors; its SGD needs no options.
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a real GPU: see the tests at the end")
@pytest.mark.skipif(
    torch.__version__.startswith("2.6"), reason="fake tensors of torch 2.6 ask for CUDA's driver"
)
@pytest.mark.parametrize("name", [name for name in TRAINED if name != "anomalib_stfpm"])
def test_a_step_on_a_gpu_mixes_no_devices_and_its_optimisers_can_be_captured(name, fake_gpu, monkeypatch):
    train = train_set(name)
    detector = built(name, "cuda", **ON_FAKE_GPU.get(name, {"epochs": 1, "batch_size": 20}))
    made = []
    for optimizer in (torch.optim.Adam, torch.optim.RMSprop):
        monkeypatch.setattr(
            optimizer,
            "__init__",
            lambda self, *args, original=optimizer.__init__, **options: (
                made.append(self),
                original(self, *args, **options),
            )[1],
        )
    build = detector.build

    def build_there(shape):
        with torch.device("cuda"):
            build(shape)
        fake_gpu.parameters = [p for network in detector.networks.values() for p in network.parameters()]

    monkeypatch.setattr(detector, "build", build_there)
    monkeypatch.setattr(torch.Tensor, "__float__", lambda _: 0.0)  # the losses, at the end of an epoch
    with fake_gpu:
        assert list(detector.epochs(train))
    assert made
    assert all(group["capturable"] for optimizer in made for group in optimizer.param_groups)
    assert all(optimizer.state for optimizer in made)


def test_under_bf16_on_a_gpu_networks_are_channels_last_but_for_depthwise_ones(monkeypatch):
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: kind == "cuda")
    monkeypatch.setattr(training, "Captured", lambda function, *_, **__: function)
    plain, depthwise = nn.Conv2d(4, 8, 3), nn.Sequential(nn.Conv2d(4, 8, 3), nn.Conv2d(8, 8, 3, groups=8))
    detector = Walker(device="cuda")
    monkeypatch.setattr(Walker, "networks", {"plain": plain, "depthwise": depthwise})
    stepper(detector, dict)
    assert plain.weight.is_contiguous(memory_format=torch.channels_last)
    assert depthwise[0].weight.is_contiguous()


def test_a_plain_call_is_detached_and_takes_lists():
    weight = torch.ones(2, requires_grad=True)
    function = captured(Walker(), lambda parts, last: {"sum": sum(parts) * weight + last})
    found = function([torch.ones(2), torch.ones(2)], torch.ones(2))
    assert found["sum"].tolist() == [3, 3]
    assert not found["sum"].requires_grad


class FakeGenerator:
    def __init__(self):
        self.state = "before"

    def clone_state(self):
        return self.state

    def graphsafe_set_state(self, state):
        self.state = state


class FakeGraph:
    replays = 0

    def replay(self):
        self.replays += 1


@pytest.fixture
def stage(monkeypatch):
    """What `Captured` asks of CUDA, without it; the capture fails if the fixture's list holds an error."""
    errors, generator = [], FakeGenerator()

    class Stream:
        def __init__(self, *_):
            pass

        def wait_stream(self, _):
            pass

    generator.stream = main = generator.main = Stream()

    @contextlib.contextmanager
    def graph(_, stream):
        assert isinstance(stream, Stream)
        yield
        generator.state = "capturing" if errors else generator.state
        generator.stream = stream if errors else main
        if errors:
            try:
                raise errors[0]
            except RuntimeError:
                raise RuntimeError("capture invalidated\nmore about it") from None

    monkeypatch.setattr("adbench_tgan.graphs._stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: generator.stream)
    monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: setattr(generator, "stream", stream))
    monkeypatch.setattr(torch.cuda, "stream", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "default_generators", (generator,))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    return errors, generator


def doubling():
    calls = []

    def double(x):
        calls.append(x)
        return {"y": 2 * x}

    return double, calls


def test_the_first_calls_are_plain_the_next_is_captured_and_the_rest_are_replayed(stage):
    double, calls = doubling()
    function = Captured(double, "cuda", [])
    for number in range(WARMUP):
        assert function(torch.full((2,), float(number)))["y"].tolist() == [2 * number] * 2
    given = torch.full((2,), 7.0)
    first = function(given)
    assert len(calls) == WARMUP + 1
    assert calls[-1] is not given  # the graph reads a tensor of its own
    assert function(torch.full((2,), 9.0)) is first
    assert calls[-1].tolist() == [9, 9]
    assert given.tolist() == [7, 7]
    assert len(calls) == WARMUP + 1
    assert function.recording.graph.replays == 2
    assert function(torch.ones(5))["y"].tolist() == [2] * 5  # of another shape: a plain call
    assert function.recording.graph.replays == 2


def test_a_recording_is_replayed_for_inputs_of_its_own_kind_alone():
    recording = Recording(None, ([torch.ones(2)], 3), None)
    assert recording.fits(([torch.zeros(2)], 3))
    for others in (([torch.ones(3)], 3), ([torch.ones(2).double()], 3), ([torch.ones(2)], 4)):
        assert not recording.fits(others)


def test_where_the_capture_fails_steps_are_plain_and_a_note_says_so(stage):
    errors, generator = stage
    errors.append(RuntimeError("operation not permitted when stream is capturing\nCUDA kernel errors"))
    double, calls = doubling()
    notes = []
    function = Captured(double, "cuda", notes)
    for number in range(WARMUP + 3):
        assert function(torch.full((2,), float(number)))["y"].tolist() == [2 * number] * 2
    assert notes == [
        "no CUDA graph, steps run one kernel at a time: operation not permitted when stream is capturing"
    ]
    assert generator.state == "before"
    assert generator.stream is generator.main
    assert len(calls) == WARMUP + 4  # one of them was the capture, which computes nothing


def test_a_detector_can_do_without_graphs(stage):
    double, calls = doubling()
    detector = Walker(device="cuda")
    detector.graphs = False
    function = stepper(detector, double)
    for _ in range(WARMUP + 2):
        function(torch.ones(2))
    assert len(calls) == WARMUP + 2
    assert function.recording is None


def network():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 36, 1))


def stepped(net, optimizer):
    net(torch.randn(4, 3, 8, 8)).mean().backward()
    optimizer.step()


def test_a_restart_draws_everything_anew_or_changes_nothing():
    torch.manual_seed(0)
    net = network().apply(dcgan_init)
    optimizer = torch.optim.Adam(net[:2].parameters(), lr=0.1)
    stepped(net, optimizer)
    before = [value.clone() for value in (*net.parameters(), *net.buffers())]
    moments = [value.clone() for state in optimizer.state.values() for value in state.values()]
    assert restart_where(torch.tensor(False), net, optimizer) == 0
    assert all(map(torch.equal, before, (*net.parameters(), *net.buffers())))
    assert all(map(torch.equal, moments, (v for s in optimizer.state.values() for v in s.values())))

    net[0].weight.data[0] = torch.nan  # even this does not stay
    assert restart_where(torch.tensor(True), net, optimizer) == 1
    assert net[0].weight.std().item() == pytest.approx(0.02, rel=0.3)
    assert not torch.equal(net[0].weight, before[0])
    assert net[0].bias.tolist() == [0] * 8
    assert net[1].running_mean.tolist() == [0] * 8
    assert net[1].running_var.tolist() == [1] * 8
    assert net[1].num_batches_tracked == 0
    assert not any(value.any() for state in optimizer.state.values() for value in state.values())


@pytest.mark.parametrize("decay", [0.0, 0.9, 0.999])
def test_averages_are_torchs_to_the_last_bit(decay):
    torch.manual_seed(0)
    net = network()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    average_fn = torch.optim.swa_utils.get_ema_multi_avg_fn(decay)
    theirs = torch.optim.swa_utils.AveragedModel(net, multi_avg_fn=average_fn)
    ours = Average(net, decay)
    for _ in range(4):
        stepped(net, optimizer)
        theirs.update_parameters(net)
        ours.update(net)
        a, b = ours.module.state_dict(), theirs.module.state_dict()
        assert all(torch.equal(a[key], b[key]) for key in b)
    assert not any(parameter.requires_grad for parameter in ours.module.parameters())


@pytest.mark.parametrize("name", [name for name in TRAINED if not name.startswith("anomalib")])
def test_a_step_that_fails_halfway_leaves_nothing_frozen(name, monkeypatch):
    """As one does whose graph cannot be captured: it is run again, plainly."""
    detector = built(name, **ON_GPU.get(name, {}))
    left = 0  # calls of a discriminator until it fails
    failures = []

    def count(*_):
        nonlocal left
        left -= 1
        if left == 0:
            raise MemoryError

    def call(self, *inputs):
        nonlocal left
        judges = [net for key, net in detector.networks.items() if key.startswith(("disc", "critic"))]
        weights = [weight for net in judges for weight in net.parameters()]
        hooks = [net.register_forward_pre_hook(count) for net in judges]
        trained, fails = [weight.requires_grad for weight in weights], 0
        while not hasattr(self, "last"):
            left = fails = fails + 1
            with contextlib.suppress(MemoryError):
                self.last = graphs._detached(self.function(*inputs))
            assert trained == [weight.requires_grad for weight in weights]
            failures.append(fails)
        for hook in hooks:
            hook.remove()
        return self.last

    monkeypatch.setattr(Captured, "__call__", call)
    detector.fit(train_set(name))
    assert max(failures) > 2


needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU: no CUDA graph was captured"
)


def trained_on_gpu(name, in_graphs, dtype="fp32"):
    if name.startswith("anomalib"):
        pytest.importorskip("anomalib")
    with precision(dtype, "cuda"):
        detector = built(name, "cuda", **ON_GPU.get(name, {}))
        detector.graphs = in_graphs
        history = training.fit(detector, train_set(name))
        scores = detector.score(smooth_images(8, SHAPE, seed=1).cuda())
    return history, scores.float().cpu(), detector.notes


ON_GPU = {
    "f_anogan": {"gan_steps": 6, "encoder_steps": 6},
    "egbad": {"steps": 8},
    "anogan": {"iterations": 8},
    "transgan_anogan": {"iterations": 16, "n_critic": 2},
    # Its weights may not be on the machine; more images a step would leave none for the graphs.
    "transgan_dual": {"backbone": "none", "batch_size": 16, "epochs": 4},
    "anotrans": {"epochs": 2},  # in more of them rounding, which differs from run to run, leads far apart
    "anomalib_stfpm": {"epochs": 2},
}


@pytest.mark.parametrize("name", TRAINED)
def test_those_settings_have_steps_enough_for_replays(name, monkeypatch):
    calls = {}

    def counted(self, *inputs):
        calls[self] = calls.get(self, 0) + 1
        self.last = graphs._detached(self.function(*inputs)) if calls[self] == 1 else self.last
        return self.last

    monkeypatch.setattr(Captured, "__call__", counted)
    built(name, **ON_GPU.get(name, {})).fit(train_set(name))
    assert min(calls.values()) > WARMUP  # the next call captures, and replays


# Adam without momentum takes whole steps of a sign that rounding chooses: two plain trainings are as far apart.
APART = {"f_anogan": 0.25}
ONE_STEP = ("anogan", "egbad", "f_anogan", "transgan_anogan")  # is an epoch of theirs here


@pytest.fixture
def recordings(monkeypatch):
    """What was captured; None for what could not be."""
    found = []
    record = Captured._record
    monkeypatch.setattr(Captured, "_record", lambda *args: found.append(record(*args)) or found[-1])
    return found


@needs_gpu
@pytest.mark.parametrize("name", TRAINED)
def test_a_graph_trains_as_plain_calls_do(name, recordings):
    plain, plain_scores, _ = trained_on_gpu(name, False)
    assert not recordings
    graph, graph_scores, notes = trained_on_gpu(name, True)
    assert notes == []
    of_training = [each for each in recordings if each.inputs]  # a step of a walk is given nothing
    assert len(of_training) == {"f_anogan": 2, "transgan_dual": 2}.get(name, 1)
    assert len(plain) == len(graph)
    compared = WARMUP + 2 if name in ONE_STEP else 2  # epochs that have steps of the graph among them
    for one, other in zip(plain[:compared], graph[:compared], strict=True):
        assert other == pytest.approx(one, rel=2e-2, abs=1e-3)
    torch.testing.assert_close(
        graph_scores, plain_scores, rtol=0.1, atol=APART.get(name, 0.1) * float(plain_scores.abs().max())
    )


@needs_gpu
@pytest.mark.parametrize("name", TRAINED)
def test_bf16_trains_in_a_graph_too(name):
    history, scores, notes = trained_on_gpu(name, True, "bf16")
    assert notes == []
    assert scores.isfinite().all()
    assert history


@needs_gpu
def test_each_replay_is_a_step_on_its_own_input(recordings):
    found = {}
    for plain in (True, False):
        torch.manual_seed(0)
        net = nn.Linear(4, 2).cuda()
        optimizer = training.adam(net.parameters(), 0.01, (0.5, 0.999))
        step = Captured(lambda x, net=net, opt=optimizer: learnt(net, opt, x), "cuda", [], plain=plain)
        images = torch.randn(2 * WARMUP + 2, 8, 4).cuda()
        lines = [(step(x).clone(), net.weight.detach().clone().flatten()) for x in images]
        found[plain] = torch.stack([torch.hstack(line) for line in lines])  # loss and weights after each
    assert len(recordings) == 1
    torch.testing.assert_close(found[False], found[True], rtol=1e-5, atol=1e-6)
    assert (found[True].diff(dim=0).abs() > 1e-4).all(1).all()  # each step told from the one before


def learnt(net, optimizer, x):
    loss = net(x).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


@needs_gpu
def test_random_numbers_in_a_graph_are_those_of_plain_calls():
    drawn = {}
    for plain in (True, False):
        torch.manual_seed(0)
        function = Captured(lambda x: torch.rand_like(x), "cuda", [], plain=plain)
        drawn[plain] = torch.stack([function(torch.zeros(5, device="cuda")).clone() for _ in range(8)])
    assert torch.equal(drawn[True], drawn[False])
