"""The notebook loop of the five write-ups, written out plainly: what whit's speed is measured by.

    python benchmarks/notebook.py published-16848 --epochs 1 --steps 200

It is what people of this task write: images as PIL, one transform for each image, a DataLoader,
batch by batch, log-softmax, a progress bar with the loss of each batch, plain SGD, fp32, torch's
own number of threads. It shares no code with whit: files, models and loop are all here, so a
mistake in whit cannot make the baseline slower or the comparison wrong.

Wherever notebooks differ, the faster of the usual ways is taken, so that no gain is claimed over
a straw man: `Normalize` leaves out the checks of its arguments that torchvision makes for each
image, the loss is asked for once a batch, and the number of workers is a parameter (0 is the
usual choice without a GPU; on two cores it was also the quickest of 0, 1 and 2).
"""

from __future__ import annotations

import argparse
import gzip
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim
from PIL import Image
from torch.utils.data import DataLoader, Dataset

MNIST_FOLDER = Path(__file__).resolve().parent.parent / "src" / "whit" / "data" / "mnist"


# --- Data, as torchvision's MNIST, ToTensor and Normalize do it ----------------------------------


class ToTensor:
    def __call__(self, image):
        pixels = np.array(image, np.uint8, copy=True)
        tensor = torch.from_numpy(pixels).view(image.size[1], image.size[0], 1)
        tensor = tensor.permute((2, 0, 1)).contiguous()
        return tensor.to(dtype=torch.get_default_dtype()).div(255)


class Normalize:
    def __init__(self, mean, std):
        self.mean = mean
        self.std = std

    def __call__(self, tensor):
        tensor = tensor.clone()
        mean = torch.as_tensor(self.mean, dtype=tensor.dtype, device=tensor.device)
        std = torch.as_tensor(self.std, dtype=tensor.dtype, device=tensor.device)
        return tensor.sub_(mean.view(-1, 1, 1)).div_(std.view(-1, 1, 1))


class Compose:
    def __init__(self, transforms):
        self.transforms = transforms

    def __call__(self, image):
        for transform in self.transforms:
            image = transform(image)
        return image


class MNIST(Dataset):
    def __init__(self, train, transform):
        name = "train" if train else "t10k"
        with gzip.open(MNIST_FOLDER / f"{name}-images-idx3-ubyte.gz") as file:
            images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
        with gzip.open(MNIST_FOLDER / f"{name}-labels-idx1-ubyte.gz") as file:
            labels = np.frombuffer(file.read(), np.uint8, offset=8)
        self.data = torch.from_numpy(images.copy())
        self.targets = torch.from_numpy(labels.astype(np.int64))
        self.transform = transform

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        image, target = self.data[index], int(self.targets[index])
        image = Image.fromarray(image.numpy())
        return self.transform(image), target


def make_loaders(batch_size, num_workers=0):
    """Return the loaders of the training and the test images, both shuffled as in notebooks."""
    transform = Compose([ToTensor(), Normalize((0.1307,), (0.3081,))])
    options = {"batch_size": batch_size, "shuffle": True, "num_workers": num_workers}
    train_loader = DataLoader(MNIST(train=True, transform=transform), **options)
    test_loader = DataLoader(MNIST(train=False, transform=transform), **options)
    return train_loader, test_loader


# --- The five published networks, as their notebooks write them ----------------------------------


class Net17098(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.BatchNorm2d(16),
            nn.MaxPool2d(2, 2),
            nn.Dropout(0.15),
        )
        self.conv2 = nn.Sequential(
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.BatchNorm2d(32),
            nn.MaxPool2d(2, 2),
            nn.Dropout(0.15),
        )
        self.conv3 = nn.Sequential(
            nn.Conv2d(32, 32, 3),
            nn.ReLU(),
            nn.BatchNorm2d(32),
            nn.Dropout(0.15),
        )
        self.conv4 = nn.Conv2d(32, 10, 3)
        self.gap = nn.AdaptiveAvgPool2d(1)

    def forward(self, x):
        x = F.relu(self.conv1(x))
        x = self.conv2(x)
        x = self.conv3(x)
        x = self.gap(self.conv4(x))
        x = x.view(-1, 10)
        return F.log_softmax(x, dim=1)


class Net16848(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Sequential(
            nn.Conv2d(1, 16, 3, bias=False),
            nn.ReLU(),
            nn.BatchNorm2d(16),
            nn.Dropout2d(0.25),
            nn.Conv2d(16, 16, 3, bias=False),
            nn.ReLU(),
            nn.BatchNorm2d(16),
            nn.Conv2d(16, 16, 3, bias=False),
            nn.ReLU(),
            nn.BatchNorm2d(16),
            nn.MaxPool2d(2, 2),
        )
        self.conv2 = nn.Sequential(
            nn.Conv2d(16, 16, 3, bias=False),
            nn.ReLU(),
            nn.BatchNorm2d(16),
            nn.Dropout2d(0.25),
            nn.Conv2d(16, 16, 3, padding=1, bias=False),
            nn.ReLU(),
            nn.BatchNorm2d(16),
            nn.Dropout2d(0.1),
            nn.Conv2d(16, 16, 3, bias=False),
            nn.ReLU(),
            nn.BatchNorm2d(16),
            nn.Dropout2d(0.1),
            nn.Conv2d(16, 32, 3, bias=False),
            nn.ReLU(),
            nn.BatchNorm2d(32),
            nn.Dropout2d(0.25),
        )
        self.conv3 = nn.Conv2d(32, 10, 1, bias=False)
        self.pool = nn.AvgPool2d(5)

    def forward(self, x):
        x = self.conv1(x)
        x = self.conv2(x)
        x = self.pool(self.conv3(x))
        x = x.view(-1, 10)
        return F.log_softmax(x, dim=1)


class Net19122(nn.Module):
    def __init__(self):
        super().__init__()
        self.block1 = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.BatchNorm2d(16),
            nn.Dropout2d(0.1),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.BatchNorm2d(32),
            nn.Dropout2d(0.1),
        )
        self.transition1 = nn.Sequential(nn.MaxPool2d(2, 2), nn.Conv2d(32, 8, 1))
        self.block2 = nn.Sequential(
            nn.Conv2d(8, 16, 3, padding=1),
            nn.ReLU(),
            nn.BatchNorm2d(16),
            nn.Dropout2d(0.1),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.BatchNorm2d(32),
            nn.Dropout2d(0.1),
        )
        self.transition2 = nn.Sequential(nn.MaxPool2d(2, 2), nn.Conv2d(32, 16, 1))
        self.block3 = nn.Sequential(
            nn.Conv2d(16, 32, 3),
            nn.ReLU(),
            nn.Dropout2d(0.1),
            nn.Conv2d(32, 10, 3),
        )
        self.pool = nn.AvgPool2d(3)

    def forward(self, x):
        x = self.transition1(self.block1(x))
        x = self.transition2(self.block2(x))
        x = self.pool(self.block3(x))
        x = x.view(-1, 10)
        return F.log_softmax(x, dim=1)


class Net19130(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.BatchNorm2d(16))
        self.conv2 = nn.Sequential(
            nn.Conv2d(16, 16, 3),
            nn.ReLU(),
            nn.BatchNorm2d(16),
            nn.MaxPool2d(2, 2),
            nn.Dropout(0.2),
        )
        self.conv3 = nn.Sequential(
            nn.Conv2d(16, 16, 3), nn.ReLU(), nn.BatchNorm2d(16), nn.Dropout(0.2)
        )
        self.conv4 = nn.Sequential(
            nn.Conv2d(16, 16, 3), nn.ReLU(), nn.BatchNorm2d(16), nn.Dropout(0.2)
        )
        self.conv5 = nn.Sequential(
            nn.Conv2d(16, 64, 3),
            nn.ReLU(),
            nn.BatchNorm2d(64),
            nn.AdaptiveAvgPool2d(1),
            nn.Dropout(0.1),
        )
        self.fc1 = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.BatchNorm1d(32), nn.Dropout(0.1))
        self.fc2 = nn.Linear(32, 10)

    def forward(self, x):
        x = self.conv1(x)
        x = self.conv2(x)
        x = self.conv3(x)
        x = self.conv4(x)
        x = self.conv5(x)
        x = x.view(-1, 64)
        x = self.fc2(self.fc1(x))
        return F.log_softmax(x, dim=1)


class Net15938(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.Dropout(0.05), nn.ReLU()
        )
        self.conv2 = nn.Sequential(
            nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.Dropout(0.05), nn.ReLU()
        )
        self.squeeze = nn.Sequential(nn.Conv2d(32, 8, 1), nn.MaxPool2d(2, 2), nn.Dropout(0.05))
        self.conv3 = nn.Sequential(
            nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.Dropout(0.05), nn.ReLU()
        )
        self.conv4 = nn.Sequential(
            nn.Conv2d(16, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.MaxPool2d(2, 2),
            nn.Dropout(0.05),
            nn.ReLU(),
        )
        self.conv5 = nn.Sequential(
            nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.Dropout(0.05), nn.ReLU()
        )
        self.conv6 = nn.Sequential(
            nn.Conv2d(16, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.MaxPool2d(2, 2),
            nn.Dropout(0.05),
            nn.ReLU(),
        )
        self.conv7 = nn.Sequential(
            nn.Conv2d(16, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.AvgPool2d(2, 2),
            nn.Dropout(0.10),
            nn.ReLU(),
        )
        self.fc = nn.Linear(16, 10)

    def forward(self, x):
        x = self.squeeze(self.conv2(self.conv1(x)))
        x = self.conv4(self.conv3(x))
        x = self.conv6(self.conv5(x))
        x = self.conv7(x)
        x = x.view(-1, 16)
        x = self.fc(x)
        return F.log_softmax(x, dim=1)


@dataclass(frozen=True)
class Published:
    """One write-up's network and its setting."""

    network: Callable[[], nn.Module]
    params: int
    lr: float  # for each step, constant
    batch_size: int
    epochs: int


MODELS = {
    "published-17098": Published(Net17098, 17_098, lr=0.012, batch_size=32, epochs=18),
    "published-16848": Published(Net16848, 16_848, lr=0.01, batch_size=128, epochs=20),
    "published-19122": Published(Net19122, 19_122, lr=0.01, batch_size=64, epochs=20),
    "published-19130": Published(Net19130, 19_130, lr=0.01, batch_size=32, epochs=19),
    "published-15938": Published(Net15938, 15_938, lr=0.01, batch_size=128, epochs=19),
}


def make_model(model_name):
    """Return a new network, once its parameters add up to the published total."""
    published = MODELS[model_name]
    model = published.network()
    total = sum(p.numel() for p in model.parameters())
    assert total == published.params, f"{model_name} has {total:,} parameters"
    return model


def make_optimizer(model_name, model):
    return optim.SGD(model.parameters(), lr=MODELS[model_name].lr, momentum=0.9)


# --- The loop ------------------------------------------------------------------------------------


class ProgressBar:
    """Stands in for tqdm: writes the description and the count to standard error every batch.

    A batch costs it 2 microseconds and tqdm 9 (tqdm 4.70, standard error to /dev/null), and the
    step itself milliseconds; so tqdm is no dependency of ours, and the baseline no slower.
    """

    def __init__(self, batches):
        self.batches = batches
        self.count = 0

    def __iter__(self):
        for batch in self.batches:
            yield batch
            self.count += 1

    def set_description(self, desc):
        sys.stderr.write(f"\r{desc}: {self.count}/{len(self.batches)}")
        sys.stderr.flush()

    def close(self):
        sys.stderr.write("\n")


def notebook_epoch(model, train_loader, optimizer, epoch, steps=None):
    """Train for one epoch, or its first `steps` batches. Returns the number of images seen."""
    print(f"Epoch:  {epoch}")
    model.train()
    seen = 0
    pbar = ProgressBar(train_loader)
    for batch_idx, (data, target) in enumerate(pbar):
        optimizer.zero_grad()
        output = model(data)
        loss = F.nll_loss(output, target)
        loss.backward()
        optimizer.step()
        pbar.set_description(desc=f"loss={loss.item()} batch_id={batch_idx}")
        seen += len(data)
        if batch_idx + 1 == steps:
            break
    pbar.close()
    return seen


def notebook_test(model, test_loader):
    """Return how many of the test images are right, and how many there are."""
    model.eval()
    test_loss = 0
    correct = 0
    with torch.no_grad():
        for data, target in test_loader:
            output = model(data)
            test_loss += F.nll_loss(output, target, reduction="sum").item()
            pred = output.argmax(dim=1, keepdim=True)
            correct += pred.eq(target.view_as(pred)).sum().item()

    total = len(test_loader.dataset)
    test_loss /= total
    print(
        f"\nTest set: Average loss: {test_loss:.4f}, "
        f"Accuracy: {correct}/{total} ({100.0 * correct / total:.2f}%)\n"
    )
    return correct, total


@dataclass(frozen=True)
class Epoch:
    """What one epoch of the notebook took and gave."""

    epoch: int
    images: int
    train_seconds: float
    test_seconds: float
    correct: int  # of the 10,000 test images


def run(model_name, epochs=None, num_workers=0, seed=1, steps=None):
    """Train as published and yield an `Epoch` after each; `steps` cuts epochs short."""
    published = MODELS[model_name]
    torch.manual_seed(seed)
    train_loader, test_loader = make_loaders(published.batch_size, num_workers)
    model = make_model(model_name)
    optimizer = make_optimizer(model_name, model)
    for epoch in range(1, (epochs or published.epochs) + 1):
        start = time.perf_counter()
        images = notebook_epoch(model, train_loader, optimizer, epoch, steps)
        trained = time.perf_counter()
        correct, _ = notebook_test(model, test_loader)
        tested = time.perf_counter()
        yield Epoch(epoch, images, trained - start, tested - trained, correct)


def main():
    parser = argparse.ArgumentParser(description="Train a published network as its notebook did.")
    parser.add_argument("model", choices=sorted(MODELS))
    parser.add_argument("--epochs", type=int, help="fewer than published")
    parser.add_argument("--workers", type=int, default=0, help="of the DataLoader (default: 0)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, help="batches in each epoch, to try it out")
    options = parser.parse_args()
    print(
        f"{options.model}: torch {torch.__version__}, {torch.get_num_threads()} threads, "
        f"{options.workers} workers, fp32"
    )
    for row in run(options.model, options.epochs, options.workers, options.seed, options.steps):
        print(
            f"epoch {row.epoch}: {row.images:,} images, training {row.train_seconds:.2f} s, "
            f"test {row.test_seconds:.2f} s, {row.correct} of 10,000 right",
            flush=True,
        )


if __name__ == "__main__":
    main()
