"""VoiceBench's rule for reading a letter from an assistant's response to a spoken multiple-choice question.

References:
    MCQEvaluator in the VoiceBench repository's src/evaluator/mcq.py (Chen et al. 2024), whose phrases these are.
"""

LETTERS = "ABCD"

# Phrases with `_` where a letter may be, in the order in which VoiceBench looks. Its list has five more, which are
# never reached: a text with one of them has an earlier one, too.
PHRASES = tuple(
    tuple(phrase.split("_"))
    for phrase in (
        "答案是_|答案是 _|答案是选项_|答案应该是_|答案应该是 _|答案就是选项_|答案是‘_|是_：|答案选_|_是正确|"
        "选项_是最合适的|answer is: **_|answer is **_|"
        "the answer to the question is: **_|the answer to the multiple-choice question is **_|the answer is '_'|"
        "_ is the best answer|the answer is _|the correct answer is _|would select _|would choose _|"
        'would select option _|would choose option _|is "_"|is "_.|is: **_)|is **_,|is **_:|is **_)|is: **_.|'
        "is: **_:|is **_.|be **_,|is: **_**|is therefore option **_:|is: \n\n**_)|as **_:|be **_)|be **_:|"
        'is: \n\n**_**|suggests **_)|be option **_:|with **_)|is typically "_)|be to **_)|is: \n\n_)|'
        "is likely to be: **_.|is **_ (|is option **_**|is likely **_**|is:\n**_.|is:\n\n**_.|would be _|"
        "would be option _|would be (_)|would be option (_)|is _,|is typically _,|is typically _.|i'd say _.|"
        "option _.|option _:|option _,|the answer is:\n**_|is _:|is _.|is: _.|is (_)|is:\n**_)|is likely **_:|"
        "is the **_)|:\n_.|:\n_)|:\n_,|: \n_.|:  \n_.|:\n\n_.|:\n\n_)|is most likely **_:|:\n\n_,|: \n\n_.|"
        '(_) would be|is _)|is: _)|is:\n\n_:|is: **_,|(option _)|select option "_"|is: _|is typically **_,|'
        "is **_**|is likely '_'|is option '_'|is:\n**_:|is \\( \\boxed{_ |would be '_'|is the **_** |"
        "question is _ (|is:\n\n**_)|closest to option **_**|is most likely **_)|the answer to the question is '_'|"
        "known as '_'|is '_)|is typically **_:|is \\( \\boxed{\\text{_}} \\)|is \\( \\text{_) }|"
        "is \\( \\text{_} \\)|is \\( \\text{_:|is \\( \\text{_)|is \\(\\text{_.|is:\n\n**_|is \\( \\text{_.}|"
        "is \\( \\text{_.|is \\( \\boxed{_}|is:\n\\[ \\boxed{\\text{_}}|is:\n\\[ \\text{_)|is:\n\n\\[ \\text{_)|"
        "is \\( \\textbf{_)|is \\( \\text{_}|is: \\( \\text{_.|corresponds to:\n- **_:|would be: **_**.|"
        "is \\( _ \\)|is:\n**_ |corresponds to option **_**|be **_**|be: \n\n_)|is:\n\\[ \\boxed{_}|is:  \n**_:|"
        "is: \\( \\text{_)|is likely: **_,|is } \\mathbf{_.|is \\( \\boxed{_)|is \\( \\textbf{_}|is \\(_\\)|"
        'is:\n  \n**_:|is option **_ |is:\n\\( \\textbf{_.|is \\( \\mathbf{_}|was option **_**|is likely "_)|'
        'option **_:|is "_)|is most likely **_,|is often **_:|is:  \n_)| _.| _,| _:| _)|**_.|**_)|"_.|"_,|"_:|(_)|'
        '"_"'
    ).split("|")
)


def letter(response: str) -> str | None:
    """Returns the letter that a response names, or None if VoiceBench reads none.

    The first phrase that is anywhere in the lower-cased response decides. The text around it does not count: "the
    answer is cold" is C. Without any phrase, the response must be a letter, or begin with a letter and a full stop,
    comma, colon or bracket.
    """
    said = response.lower()
    if said.startswith(("<1>", "<2>", "<3>")):
        said = said[3:].strip()
    for before, after in PHRASES:
        if before not in said:  # true of most phrases, and saves three quarters of the work
            continue
        for one in "abcd":
            if before + one + after in said:
                return one.upper()
    first, then = said[:1], said[1:2]
    return first.upper() if first and first in "abcd" and then in ("", *".,:)") else None
