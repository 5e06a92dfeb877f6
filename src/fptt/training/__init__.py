"""Driving a program: batches, parts, streams, epochs, evaluation."""
