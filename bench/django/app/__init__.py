"""An API of the document's shape in Django: the peer that Gantry is measured against."""
