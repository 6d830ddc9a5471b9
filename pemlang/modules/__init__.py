"""What an adapter is made of at a site: parametrisations, one record each."""
