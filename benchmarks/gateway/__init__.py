"""The gateway beside a plain Envoy and a bare asyncio proxy: what it adds, what it holds, how many models it takes."""
