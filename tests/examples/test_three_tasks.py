import json
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "three_tasks.py"


def test_rows_of_three_data_sets_are_joined_and_no_article_is_in_both_files(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for split, n in (("train", 3), ("test_2016_flickr", 2)):
        for language, word in (("en", "dog"), ("de", "Hund")):
            path = data / "multi30k" / f"{split}.{language}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{word} {i}\n" for i in range(n)), encoding="utf-8")
    (data / "trec").mkdir()
    for name in ("train", "test"):
        (data / "trec" / f"{name}.jsonl").write_text(json.dumps({"text": f"{name} who ?", "label": "HUM"}) + "\n", encoding="utf-8")
    articles = [{"paragraphs": [{"context": f"Article {i} of Dr. J. Doe begins in the U.S. today. It goes on."}]} for i in range(8)]
    (data / "squad_format").mkdir()
    for name, some in (("new_wiki", articles), ("amazon", [{"paragraphs": [{"context": "Broke."}]}])):
        (data / "squad_format" / f"{name}.json").write_text(json.dumps({"data": some}), encoding="utf-8")

    subprocess.run([sys.executable, str(EXAMPLE), str(data), str(tmp_path / "out")], check=True, capture_output=True, timeout=60)
    files = [tmp_path / "out" / f"{name}.jsonl" for name in ("train", "test", "texts")]
    train, test, texts = ([json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] for file in files)
    assert len(train) == 3 + 1 + 2
    assert len(test) == 2 + 1 + 6
    assert {"prefix": "translate English to German:", "source": "dog 1", "target": "Hund 1"} in train
    assert {"prefix": "classify the question:", "source": "test who ?", "target": "HUM"} in test
    whole = "Article 1 of Dr. J. Doe begins in the U.S. today. It goes on."
    assert train[-1] == {"prefix": "summarize:", "source": whole, "target": "Article 1 of Dr. J. Doe begins in the U.S. today."}
    assert not {row["source"] for row in train} & {row["source"] for row in test if row["prefix"] == "summarize:"}
    captions = [text for i in range(3) for text in (f"dog {i}", f"Hund {i}")]
    assert [row["text"] for row in texts] == [*captions, "train who ?", *(row["source"] for row in train[-2:]), "Broke."]
