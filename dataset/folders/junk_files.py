"""What cameras, systems and programs leave beside photos: a name in, what it is out."""

from typing import Final

_FOLDERS: Final = {
    "@eadir": "thumbnails of a Synology (@eaDir)",
    "@tmp": "a system folder of a Synology",
    "@sharebin": "a system folder of a Synology",
    "#recycle": "a recycle bin (#recycle)",
    "#snapshot": "snapshots of a file server (#snapshot)",
    "@recycle": "a recycle bin (@Recycle)",
    "@recently-snapshot": "snapshots of a file server (@Recently-Snapshot)",
    "@__thumb": "thumbnails of a QNAP (@__thumb)",
    ".@__thumb": "thumbnails of a QNAP (@__thumb)",
    "__macosx": "what macOS adds to archives (__MACOSX)",
    "$recycle.bin": "a recycle bin ($RECYCLE.BIN)",
    "recycler": "a recycle bin (RECYCLER)",
    "system volume information": "a system folder of Windows (System Volume Information)",
    "network trash folder": "a recycle bin (Network Trash Folder)",
    "temporary items": "a system folder of macOS (Temporary Items)",
    "lost+found": "what a file system check rescued (lost+found)",
    "__pycache__": "a cache of Python (__pycache__)",
    ".git": "a repository (.git)",
    ".thumbnails": "thumbnails (.thumbnails)",
    ".picasaoriginals": "originals of edited photos (.picasaoriginals)",
    ".ipynb_checkpoints": "copies that Jupyter makes (.ipynb_checkpoints)",
}
_FILES: Final = {
    "thumbs.db": "thumbnails of Windows (Thumbs.db)",
    "ehthumbs.db": "thumbnails of Windows (ehthumbs.db)",
    "ehthumbs_vista.db": "thumbnails of Windows (ehthumbs_vista.db)",
    "desktop.ini": "settings of a Windows folder (desktop.ini)",
    "picasa.ini": "settings of Picasa (Picasa.ini)",
    "icon\r": "the icon of a macOS folder",
    ".ds_store": "settings of a macOS folder (.DS_Store)",
    ".picasa.ini": "settings of Picasa (Picasa.ini)",
}
_UNFINISHED: Final = (".tmp", ".temp", ".part", ".partial", ".crdownload", ".download", ".swp")
_COPIES: Final = (".bak", ".orig", "~", "_original")  # of editors, and of ExifTool


def describe_junk(name: str, *, is_folder: bool) -> str | None:
    """Return what a file or folder called ``name`` is where nobody means it, else ``None``.

    >>> describe_junk("Thumbs.db", is_folder=False)
    'thumbnails of Windows (Thumbs.db)'
    """
    known = (_FOLDERS if is_folder else _FILES).get(name.lower())
    if known is not None:
        return known
    if name.startswith("._"):
        return "what macOS keeps beside files (._*)"
    if name.startswith("."):
        return f"a hidden {'folder' if is_folder else 'file'}"
    if not is_folder and (name.startswith("~$") or name.lower().endswith(_UNFINISHED)):
        return "an unfinished or temporary file"
    if not is_folder and name.lower().endswith(_COPIES):
        return "a copy that a program kept before a change"
    return None
