"""What the worker is made of: a bill of materials, licences, known vulnerabilities."""
