"""Run the stages of a config: python run.py --config=configs/quickstart.py --workdir=DIR; --help shows all flags."""

from olmix_jax import cli

if __name__ == "__main__":
    cli.main()
