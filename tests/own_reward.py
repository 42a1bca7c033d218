"""A user's own reward, which differs between the texts of a model that has learnt nothing yet."""


def vowels(completion, record, style):
    return sum(letter in "aeiou" for letter in completion) / (len(completion) + 1)
