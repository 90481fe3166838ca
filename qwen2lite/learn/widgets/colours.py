"""Colours that nearly every eye tells apart, from the palette of Okabe and Ito, and a grey."""

BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#6c757d"
