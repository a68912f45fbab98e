from langgraph_pgsaga.cli import main

main()
