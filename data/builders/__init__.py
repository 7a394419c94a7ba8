"""Named data sets, prepared once as array_record by tensorflow-datasets, without TensorFlow.

Imported only where one is used.
"""
