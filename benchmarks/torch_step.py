"""Loss and gradient of a batch in PyTorch, as one would write it there, timed when asked (`common.Worker`).

All shots and modes at once, autograd, one slice after the other. Where there was a choice, what is
fastest on a CPU: windows by `index_select` of linear indices, measured amplitudes taken once.
"""

import statistics

import torch
from common import seconds, serve
from problem import EPS, PIXEL, THICKNESS, WAVELENGTH, Case, case_arguments, case_of, make_problem

SIZES = (1, 2, 4, 8, 16, 32)  # of micro-batches that are tried


def windows_at_once(transmission, corners, n):
    """Windows [shot, z, y, x] of all shots by one table of indices."""
    slices, height, width = transmission.shape
    along = torch.arange(n, device=corners.device)
    index = (corners[:, :1, None] + along[:, None]) * width + corners[:, 1:, None] + along
    seen = transmission.reshape(slices, height * width).index_select(1, index.reshape(-1))
    return seen.reshape(slices, len(corners), n, n).transpose(0, 1)


def windows_in_a_loop(transmission, corners, n):
    """The same, position by position with indices that wrap around, as the lecture has it."""
    height, width = transmission.shape[1:]
    seen = []
    for y, x in corners:
        rows, columns = (torch.arange(n, device=corners.device) + first for first in (y, x))
        row, column = torch.meshgrid(rows % height, columns % width, indexing="ij")
        seen.append(transmission[:, row, column])
    return torch.stack(seen)


class Batch:
    """Shots on the device: corners of their windows, what is left below a pixel, and amplitudes."""

    def __init__(self, problem, device):
        n = problem.counts.shape[-1]
        places = torch.as_tensor(problem.positions) / PIXEL
        whole = places.round()
        self.corners = (whole.long() - n // 2).to(device)
        k = torch.fft.fftfreq(n)
        y, x = (places - whole).float().T[:, :, None]
        ramps = (
            torch.exp(-2j * torch.pi * k * y)[:, :, None]
            * torch.exp(-2j * torch.pi * k * x)[:, None]
        )
        self.ramps = ramps[:, None].to(device)
        self.amplitudes = (
            torch.as_tensor(problem.counts.astype("float32")).add(EPS).sqrt().to(device)
        )
        self.kernel = torch.exp(
            -1j * torch.pi * WAVELENGTH * THICKNESS * (k[:, None] ** 2 + k**2) / PIXEL**2
        ).to(device)

    def loss(self, phase, probe, some=slice(None), windows=windows_at_once):
        """Mean over all shots of the amplitude loss, of some of them."""
        transmission = torch.polar(torch.ones_like(phase), phase)
        seen = windows(transmission, self.corners[some], probe.shape[-1])
        wave = torch.fft.ifft2(torch.fft.fft2(probe) * self.ramps[some])
        for layer in seen[:, :-1].unbind(1):
            wave = torch.fft.ifft2(self.kernel * torch.fft.fft2(wave * layer[:, None]))
        wave = torch.fft.fft2(wave * seen[:, -1:], norm="ortho")
        intensity = (wave.real.square() + wave.imag.square()).sum(1)
        return ((intensity + EPS).sqrt() - self.amplitudes[some]).square().sum() / len(self.corners)


def make_gradient(case: Case, device: torch.device, micro: int | None = None, **options):
    """A function of nothing that computes loss and gradient, by phase and probe, `micro` shots at a time."""
    problem = make_problem(case)
    batch = Batch(problem, device)
    phase, probe = (
        torch.tensor(a, device=device, requires_grad=True) for a in (problem.phase, problem.probe)
    )
    loss = torch.compile(batch.loss) if options.pop("compiled", False) else batch.loss
    parts = [slice(i, i + micro) for i in range(0, case.shots, micro)] if micro else [slice(None)]

    def gradient():
        phase.grad = probe.grad = None
        total = 0.0
        for some in parts:
            value = loss(phase, probe, some, **options)
            value.backward()
            total += value.detach()
        return total.item()

    return gradient


def best_micro(case: Case, device: torch.device) -> int:
    """The size of micro-batches that is fastest here."""

    def median(size):
        gradient = make_gradient(case, device, size)
        gradient()
        return statistics.median(seconds(gradient) for _ in range(3))

    return min((size for size in SIZES if size <= case.shots), key=median)


def main():
    parser = case_arguments(__doc__)
    parser.add_argument("form", choices=("batch", "micro", "compiled", "loop"))
    args = parser.parse_args()
    case, device = case_of(args), torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("highest")
    micro = best_micro(case, device) if args.form == "micro" else None
    options = {"compiled": {"compiled": True}, "loop": {"windows": windows_in_a_loop}}.get(
        args.form, {}
    )
    gradient = make_gradient(case, device, micro, **options)
    name = (
        torch.cuda.get_device_name()
        if device.type == "cuda"
        else f"{torch.get_num_threads()} threads"
    )
    serve(gradient, version=f"torch {torch.__version__}", device=name, micro=micro)


if __name__ == "__main__":
    main()
