"""What algorithms that learn from their own fresh rollouts have in common."""
