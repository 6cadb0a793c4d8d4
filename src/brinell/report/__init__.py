"""What people look at: the page, tables and exports."""
