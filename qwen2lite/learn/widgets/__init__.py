"""Explorers, a file a lesson, and a chat. Each has its plain twin above it in the lesson."""
