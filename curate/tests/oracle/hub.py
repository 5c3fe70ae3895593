# Makes tests/fixtures/hub: miniature data sets with the columns the hub's have (all texts made
# up), and pool.jsonl, what s1's collect_data.py and add_aime.py make of them (restated here).
#
# python curate/tests/oracle/hub.py (pyarrow 26.0.1; run once, its output is committed)
import csv
import json
import os

import pyarrow
import pyarrow.parquet

FOLDER = os.path.join(os.path.dirname(__file__), "..", "fixtures", "hub")


def write(dataset, name, rows):
    path = os.path.join(FOLDER, dataset.replace("/", "--"), name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if name.endswith(".parquet"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, compression="zstd")
    elif name.endswith(".jsonl"):
        with open(path, "w") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    else:
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)


POOL = []


def take(row, question, solution, cot_type, source_type, edit=lambda text: text):
    row = dict(row)
    source_type = source_type(row) if callable(source_type) else source_type
    cot_type = cot_type(row) if callable(cot_type) else cot_type
    text = edit(row.pop(question))
    answer = row.pop(solution, None) if solution else None
    answer = answer[0] if isinstance(answer, list) else answer
    POOL.append(dict(question=text, solution=answer, cot_type=cot_type, source_type=source_type,
                     metadata=str(row)))


def converted(dataset, config, split, rows):
    write(dataset, f"{config}/{split}/0000.parquet", rows)
    return rows


# MATH: a question that shares eight words with MATH500, a quote, a level.
rows = converted("simplescaling/openaimath", "default", "train", [
    dict(problem="What is 1 + 1?", solution="It's $2$.", answer="2", subject="Algebra", level=1,
         unique_id="train/algebra/1.json"),
    dict(problem="Say how many of the red apples are left in the basket.", solution="\\frac{1}{2}",
         answer="1/2", subject="Prealgebra", level=5, unique_id='a "quoted" id'),
])
converted("simplescaling/openaimath", "default", "test", [
    dict(problem="Find how many of the RED apples  are left in the basket", solution="3",
         answer="3", subject="Prealgebra", level=2, unique_id="test/1.json"),
])
for row in rows:
    take(row, "problem", "solution", "math",
         lambda row: "simplescaling/openaimath/" + row["subject"])

# OlympicArena: English, text-only; lists, nulls and numbers in the metadata.
ARENA = {"Math": "math", "CS": "coding"}
SUBJECTS = ["Math", "Physics", "Chemistry", "Biology", "Geography", "Astronomy", "CS"]
for split in ["test", "val"]:
    for subject in SUBJECTS:
        rows = converted("GAIR/OlympicArena", subject, split, [
            dict(id=f"{subject}_{split}_1", problem=f"A question of {subject} in {split}.",
                 modality="text-only", language="EN", subject=subject, solution=None,
                 figure_urls=["a", "b"] if split == "val" else [], score=0.5, answer=["x\ny"],
                 rating=1e-05, unit=None),
            dict(id="zh", problem="第一题", modality="text-only", language="ZH", subject=subject,
                 solution="s", figure_urls=None, score=1.0, answer=["y"], rating=2e16, unit="m"),
            dict(id="image", problem="See image", modality="multi-modal", language="EN",
                 subject=subject, solution="s", figure_urls=None, score=1.0, answer=["y"],
                 rating=3.0, unit="m"),
        ])
        take(rows[0], "problem", "solution", ARENA.get(subject, "science"),
             "GAIR/OlympicArena/" + subject)

rows = converted("TIGER-Lab/TheoremQA", "default", "test", [
    dict(Question="How large?", Answer="1.5", Answer_type="float", Picture=None),
    dict(Question="What does it show?", Answer="2", Answer_type="integer",
         Picture=dict(bytes="png", path=None)),
])
take(rows[0], "Question", "Answer", "math", lambda row: "TIGER-Lab/TheoremQA/" + row["Answer_type"])

rows = converted("AI-MO/NuminaMath-CoT", "default", "train", [
    dict(source="aops_forum", problem="Prove it.", solution="Done.",
         messages=[dict(content="Prove it.", role="user"), dict(content="Done.", role="assistant")]),
    dict(source="olympiads", problem="Chosen by s1.", solution="Yes.", messages=[]),
    dict(source="cn_k12", problem="Pinned by us.", solution="Yes.", messages=[]),
    dict(source="cn_k12", problem="Chosen by nobody.", solution="No.", messages=[]),
])
converted("simplescaling/numinamath_500", "default", "train", [dict(problem="Chosen by s1.")])
# Differs from s1: the table's order; there the AoPS forum comes last.
for row in rows[:3]:
    take(row, "problem", "solution", "math", lambda row: "AI-MO/NuminaMath-CoT/" + row["source"])

rows = converted("KbsdJames/Omni-MATH", "default", "test", [
    dict(domain=["Mathematics -> Algebra"], difficulty=8.0, problem="Omni?", solution="Yes",
         answer="1", source="imo"),
])
take(rows[0], "problem", "solution", "math", "KbsdJames/Omni-MATH")

SCIEVAL = {"SocraticQA": "science", "reagent selection": "science", "MedQA": "health science",
           "PubMedQA": "health science"}


def scieval(task, nth, question, answer, topic=None):
    return dict(question=question, answer=answer, type="single", category="chemistry", topic=topic,
                ability="Base", task_name=task, id=str(nth))


rows = converted("OpenDFM/SciEval", "default", "test", [
    scieval("SocraticQA", 1, "Which?\n\nA. x\nB. y\n\nAnswer:", ["B"], "biology"),
    scieval("SocraticQA", 2, "No answer?\n\nAnswer:", None, "physics"),
    scieval("reagent selection", 3, "Given:\nC1,C2\nOptimal solvent:", ["C1"]),
    scieval("reagent selection", 4, "Given:\nC1,C2\nOptimal ligand:", ["C2"]),
    scieval("MedQA", 5, "A man\u2019s leg hurts.\n\nAnswer:", ["A"]),
])
late = converted("OpenDFM/SciEval", "default", "validation", [
    scieval("PubMedQA", 6, "Does it?", ["yes"]),
])


def clean(text):
    text = text.split("\n\nAnswer:")[0]
    for what in ["solvent", "ligand", "reactant"]:
        text = text.replace(f"\nOptimal {what}:", f"\nWhat is the optimal {what}?")
    return text


for row in [rows[0], rows[2], rows[3], rows[4], late[0]]:
    take(row, "question", "answer", SCIEVAL[row["task_name"]],
         lambda row: f"OpenDFM/SciEval/{row['category']}/{row['type']}/{row['task_name']}", clean)

for config in ["OE_TO_maths_en_COMP", "OE_TO_physics_en_COMP", "TP_TO_maths_en_COMP",
               "TP_TO_physics_en_COMP"]:
    kind = "Open-ended" if config.startswith("OE") else "Theorem proof"
    rows = converted("Hothan/OlympiadBench", config, "train", [
        dict(id=1606, question=f"Of {config}?", solution=["First.", "Second."],
             final_answer=["2"] if kind == "Open-ended" else None, context=None, image_1=None,
             modality="Text-only", is_multiple_answer=False, unit=None, error="1e-3",
             question_type=kind, subject="Math" if "maths" in config else "Physics"),
    ])
    take(rows[0], "question", "solution", "math",
         lambda row: f"Hothan/OlympiadBench/{row['question_type']}/{row['subject']}")

rows = converted("daman1209arora/jeebench", "default", "test", [
    dict(subject="phy", description="JEE Adv 2016 Paper 1", gold="B", index=1, question="Light?",
         type="MCQ"),
    dict(subject="chem", description="", gold="AC", index=2, question="Salt?", type="MCQ(multiple)"),
    dict(subject="math", description="", gold="3", index=3, question="Three?", type="Integer"),
])
JEE = {"math": "math", "phy": "math", "chem": "science"}
for row in rows:
    take(row, "question", "gold", lambda row: JEE[row["subject"]],
         lambda row: "daman1209arora/jeebench/" + row["subject"])

AGIEVAL = dict(sat_en="english", sat_math="math", lsat_ar="english", lsat_lr="english",
               lsat_rc="english", logiqa="math")
for config, cot_type in AGIEVAL.items():
    for split in ["test", "few_shot"]:
        rows = converted("baber/agieval", config, split, [
            dict(passage=" A passage. " if config != "sat_math" else "",
                 question=f"In {config} of {split}?", options=["(A) one", "(B) two"], label="A",
                 answer=None, solution=None if split == "test" else "Because."),
        ])
        row = dict(rows[0])
        question = (row.pop("passage") + "\n\n").strip() + row.pop("question")
        row["question"] = question + "\n" + "\n".join(row.pop("options"))
        # The question's place in the dict does not matter: it leaves before metadata is printed.
        take(row, "question", "solution", cot_type, "baber/agieval/" + config)
for config in ["aqua_rat", "math_agieval"]:
    for split in ["test", "few_shot"]:
        rows = converted("baber/agieval", config, split, [
            dict(question=f"Level {level} of {config} {split}?", answer="1", solution="One.",
                 level=level)
            for level in [4, 5]
        ])
        for row in rows if config == "aqua_rat" else rows[1:]:
            take(row, "question", "solution", "math", "baber/agieval/" + config)

rows = converted("simplescaling/s1-prob", "default", "train", [dict(question="Pr?", solution="1")])
take(rows[0], "question", "solution", "math", "simplescaling/s1-prob")

# GPQA: the order of the choices is drawn, so the test looks at them itself.
gpqa = {"Record ID": "rec1", "Question": "Which particle, \"exactly\"?", "Explanation": "By spin.",
        "Correct Answer": "right\n", "Incorrect Answer 1": "wrong 1", "Incorrect Answer 2": "wrong 2",
        "Incorrect Answer 3": "wrong 3", "High-level domain": "Physics", "Revision": ""}
diamond = dict(gpqa, Question="A diamond?")
write("Idavidrein/gpqa", "gpqa_extended.csv", [gpqa, diamond])
write("Idavidrein/gpqa", "gpqa_diamond.csv", [diamond])

CLUE = ("Solve the crossword puzzle. You are presented with a clue as input and the number of "
        "letters in brackets.\n\n")
rows = converted("0xharib/xword1", "default", "train", [
    dict(instruction="Below is a clue.", input="### Clue: Small dog (3)", output="pup"),
])
take(rows[0], "input", "output", "crossword", "0xharib/xword1",
     lambda text: CLUE + text.split("### Clue: ")[1])

rows = converted("codegenning/usacobench_formatted", "default", "test", [
    dict(cp_id="1", question="\n Count cows. ", num_samples=3, tests=[dict(input="1", output="2")]),
])
take(rows[0], "question", None, "coding", "codegenning/usacobench_formatted", str.strip)

rows = converted("simplescaling/s1-teasers", "default", "train", [
    dict(Question="A riddle. ", Answer="An answer."),
])
take(rows[0], "Question", "Answer", "math", "simplescaling/s1-teasers", str.strip)


def problem(title, difficulty):
    return dict(question_title=title, question_content=f"Solve {title}.\n", platform="codeforces",
                difficulty=difficulty, starter_code="", metadata="{}",
                public_test_cases="[]", private_test_cases="eJx")


releases = [[problem("one", "hard"), problem("two", "easy")], [problem("three", "hard")],
            [problem("four", "hard")]]
for nth, rows in enumerate(releases + [[problem("five", "hard")]]):
    write("livecodebench/code_generation_lite", f"test{nth + 1 if nth else ''}.jsonl", rows)

rows = converted("qq8933/AIME_1983_2024", "default", "train", [
    dict(ID="1983-1", Year=1983, Question="Old?", Answer="60", Part=None),
    dict(ID="2021-II-15", Year=2021, Question="Newer?", Answer="7", Part="II"),
    dict(ID="2021-I-1", Year=2021, Answer="3", Part="I",
         Question="Tell how many of the red apples are left in the basket."),
    dict(ID="2022-I-1", Year=2022, Question="Held out?", Answer="8", Part="I"),
])
for row in rows[:3]:
    take(row, "Question", "Answer", "math", "qq8933/AIME_1983_2024")

converted("AI-MO/aimo-validation-aime", "default", "train", [
    dict(id=0, problem="Held out?", solution="8", answer="8", url=""),
])

with open(os.path.join(FOLDER, "pool.jsonl"), "w") as file:
    file.writelines(json.dumps(row) + "\n" for row in POOL)
