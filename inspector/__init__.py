"""The inspector: a Streamlit app that shows why a document has the place it has."""
