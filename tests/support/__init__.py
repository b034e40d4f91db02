"""What tests share: references, generators of operands, and programs that tests run in processes of their own."""
