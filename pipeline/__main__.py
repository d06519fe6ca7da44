"""`python -m pipeline STAGE`."""

import signal

if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while modules load: an end without a traceback
    from pipeline.cli import main

    main()
