"""What a pipeline will take with more examples: time, memory and money, from measurements and prices. Plain Python."""
