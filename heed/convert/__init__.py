"""Everybody else's checkpoints: Hugging Face's folders in and out.

`import_folder` makes a run folder of one, `export_folder` writes a run as one. What is particular to a family of models (BERT, GPT-2,
Llama ...) is one class in one file (`family.Family`), the table of names in it works both ways (`table`), and the ids of a foreign
vocabulary are permuted to heed's on the way in and back on the way out (`heed.data.foreign`).

Left out: pickled weights, which run programs when they are read; quantised ones; and the code that some folders carry with them.
"""

from heed.convert.adapters import export_adapters, import_adapters
from heed.convert.exporting import Exported, export_folder
from heed.convert.importing import Imported, import_folder
from heed.convert.peft import export_peft

__all__ = ["Exported", "Imported", "export_adapters", "export_folder", "export_peft", "import_adapters", "import_folder"]
