"""Explorers: pictures with sliders, a file a lesson. Each has its plain twin above it in the lesson."""
