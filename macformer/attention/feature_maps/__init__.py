"""Attention through explicit feature maps, in time linear in the length."""
