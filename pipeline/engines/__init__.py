"""What carries an extraction: this machine alone (`local`), or Ray on one machine or many (`on_ray`).

Both go through the same chunks (`jobs`), and read, batch and write them by the same functions (`work`): what is stored
and what fails do not depend on the engine.
"""
