"""Updates of off-policy agents whose memory is elsewhere than their networks."""
