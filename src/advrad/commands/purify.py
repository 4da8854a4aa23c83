"""`advrad purify`: classifiers, what is put before them, and what that is worth."""

import typer

from .purify_apply import apply
from .purify_certify import certify
from .purify_evaluate import evaluate
from .purify_train import finetune, train_classifier, train_diffusion

app = typer.Typer(
    help="Defences of classifiers: train them, purify images, measure what they are worth.",
    rich_markup_mode=None,
)
app.command("train-classifier")(train_classifier)
app.command("train-diffusion")(train_diffusion)
app.command("finetune")(finetune)
app.command("apply")(apply)
app.command("evaluate")(evaluate)
app.command("certify")(certify)
