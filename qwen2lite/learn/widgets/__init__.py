"""Explorers: pictures with sliders, one file a lesson. Each has its plain twin in the lesson above it."""
