"""Tests that need real parts beside Python."""
