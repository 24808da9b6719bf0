"""The benchmark that can say no: arms of one task against plain training, plain but shorter, and
random.
"""
